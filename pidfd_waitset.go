//go:build linux

package sysfd

import (
	"context"
	"os"
	"sync"
	"syscall"
)

// A WaitSet waits for many processes at once. K is the type of the keys by which the caller knows
// them. The set has one descriptor of its own, an epoll instance, and no goroutine. A member and
// its PidFD need about 250 bytes of memory (on amd64, with a key of 8 bytes or less), besides what
// the kernel needs. A set keeps the memory of former members for new ones, until Close. The methods
// can be called from several goroutines at once.
type WaitSet[K any] struct {
	options WaitOption
	epoll   int // the descriptor of parking.file
	parking *parking

	mu      sync.Mutex
	members map[int]member[K] // by their descriptors; nil once closed
	events  epollEvents       // left over from a Next; empty while another is parked
	glance  glance
}

type member[K any] struct {
	p   *PidFD // acquired
	key K
}

// NewWaitSet returns an empty set. The options apply to each of its members.
//
// Errors:
//   - EINVAL for unknown options, and for [WaitBlocking];
//   - EMFILE and ENFILE if there is no descriptor left;
//   - ENOSPC beyond /proc/sys/fs/epoll/max_user_watches.
func NewWaitSet[K any](options WaitOption) (*WaitSet[K], error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	if options&WaitBlocking != 0 {
		return nil, refused(syscall.EINVAL, "WaitBlocking is not for a WaitSet")
	}
	epoll, file, err := newEpoll()
	if err != nil {
		return nil, err
	}
	w, err := newParking(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &WaitSet[K]{
		options: options, epoll: epoll, parking: w, members: map[int]member[K]{},
	}, nil
}

// lock locks a set that is not closed.
func (s *WaitSet[K]) lock() error {
	if s == nil {
		return os.ErrInvalid
	}
	s.mu.Lock()
	if s.members == nil {
		s.mu.Unlock()
		return os.ErrClosed
	}
	return nil
}

// Add adds a process, which may have ended already. Until p leaves the set its descriptor stays
// open, even if p is closed.
//
// Errors:
//   - EEXIST if p is in the set;
//   - [os.ErrClosed] if p or the set is closed;
//   - ENOSPC beyond /proc/sys/fs/epoll/max_user_watches;
//   - EINVAL if p is in 500 other sets (fs/eventpoll.c, path_limits).
func (s *WaitSet[K]) Add(p *PidFD, key K) error {
	if err := p.acquire(); err != nil {
		return err
	}
	err := s.add(p, key)
	if err != nil {
		p.release()
	}
	return err
}

func (s *WaitSet[K]) add(p *PidFD, key K) error {
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := epollAdd(s.epoll, p.fd); err != nil {
		return err
	}
	s.members[p.fd] = member[K]{p, key}
	return nil
}

// Remove takes p out of the set, and reports whether p was in it. If so, Next has not returned p
// and will not.
func (s *WaitSet[K]) Remove(p *PidFD) bool {
	if p == nil || s.lock() != nil {
		return false
	}
	defer s.mu.Unlock()
	if s.members[p.fd].p != p {
		return false
	}
	s.events.forget(p.fd)
	s.remove(p)
	return true
}

func (s *WaitSet[K]) remove(p *PidFD) {
	epollCtl(s.epoll, syscall.EPOLL_CTL_DEL, p.fd, nil)
	delete(s.members, p.fd)
	p.release()
}

// Next waits for a member that has ended, as [PidFD.Wait] waits for one process, takes it out of
// the set, and returns its key and how it ended. It returns each member once. If the set is empty,
// Next waits until a member is added.
//
// Errors:
//   - that of ctx, if no member has ended;
//   - [os.ErrClosed] when the set is closed;
//   - the error of waiting for a member, for example if a seccomp filter forbids waitid(2). It
//     comes with the key of the member, which then has left the set too.
func (s *WaitSet[K]) Next(ctx context.Context) (key K, r WaitResult, err error) {
	key, r, done, err := s.take(false)
	if done {
		return key, r, err
	}
	if ctx.Err() != nil {
		return key, r, context.Cause(ctx)
	}
	return s.park(ctx)
}

func (s *WaitSet[K]) park(ctx context.Context) (key K, r WaitResult, err error) {
	errPark := s.parking.wait(ctx, nil, func() (done bool) {
		key, r, done, err = s.take(true)
		return done
	})
	if errPark != nil {
		return key, r, errPark
	}
	return key, r, err
}

// take returns a member that has ended, or an error. If there is neither, done is false. A caller
// that does not have the turn to park, because another is parked, must not fetch more events than
// it returns: nothing would wake the other for the rest.
func (s *WaitSet[K]) take(turn bool) (key K, r WaitResult, done bool, err error) {
	if err := s.lock(); err != nil {
		return key, r, true, err
	}
	defer s.mu.Unlock()
	if !turn && s.parking.tryTurn() {
		turn = true
		defer s.parking.endTurn()
	}
	for {
		fd, gone, ok, err := s.events.next(s.epoll, turn)
		if !ok {
			return key, r, err != nil, err
		}
		m, ok := s.members[fd]
		if !ok {
			continue
		}
		// A main thread that has ended can be replaced: by another that executes a program.
		err = m.p.look(s.options, gone && !m.p.aThread, &s.glance, &r)
		if err != nil || r.Ended {
			s.remove(m.p)
			return m.key, r, true, err
		}
	}
}

// Close closes the set. Calls of [WaitSet.Next] return [os.ErrClosed]. The members leave the set;
// their PidFDs are not closed. A second Close returns [os.ErrClosed].
func (s *WaitSet[K]) Close() error {
	if err := s.lock(); err != nil {
		return err
	}
	members := s.members
	s.members = nil
	s.mu.Unlock()
	// It waits for whoever is parked, and they may wait for the lock.
	err := s.parking.file.Close()
	for _, m := range members {
		m.p.release()
	}
	return err
}
