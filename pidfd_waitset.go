//go:build linux

package sysfd

import (
	"context"
	"os"
	"sync"
	"syscall"
)

// A WaitSet waits for many processes at once. K is the type of the keys by which the caller knows
// them. The set has one descriptor of its own, an epoll instance, and no goroutine. A member and its
// PidFD need about 300 bytes of memory (on amd64, with a key of 8 bytes or less), besides what the
// kernel needs. The methods can be called from several goroutines at once.
type WaitSet[K any] struct {
	options WaitOption
	epoll   int // the descriptor of parking.file
	parking *parking

	mu      sync.Mutex
	token   uint64               // of the last Add; unlike a descriptor it is not used again
	members map[uint64]member[K] // nil once closed
	tokens  map[*PidFD]uint64
}

type member[K any] struct {
	p   *PidFD // acquired
	key K
}

// NewWaitSet returns an empty set. The options apply to each of its members.
//
// Errors:
//   - EINVAL for unknown options;
//   - EMFILE and ENFILE if there is no descriptor left;
//   - ENOSPC beyond /proc/sys/fs/epoll/max_user_watches.
func NewWaitSet[K any](options WaitOption) (*WaitSet[K], error) {
	if err := options.check(); err != nil {
		return nil, err
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
		options: options, epoll: epoll, parking: w,
		members: map[uint64]member[K]{}, tokens: map[*PidFD]uint64{},
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
	if err := epollAdd(s.epoll, p.fd, s.token+1); err != nil {
		return err
	}
	s.token++
	s.members[s.token] = member[K]{p, key}
	s.tokens[p] = s.token
	return nil
}

// Remove takes p out of the set, and reports whether p was in it. If so, Next has not returned p
// and will not.
func (s *WaitSet[K]) Remove(p *PidFD) bool {
	if s.lock() != nil {
		return false
	}
	defer s.mu.Unlock()
	_, ok := s.tokens[p]
	if ok {
		s.remove(p)
	}
	return ok
}

func (s *WaitSet[K]) remove(p *PidFD) {
	epollCtl(s.epoll, syscall.EPOLL_CTL_DEL, p.fd, nil)
	delete(s.members, s.tokens[p])
	delete(s.tokens, p)
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
	take := func() (done bool) {
		key, r, done, err = s.take()
		return done
	}
	if take() {
		return key, r, err
	}
	if ctx.Err() != nil {
		return key, r, context.Cause(ctx)
	}
	if errPark := s.parking.wait(ctx, nil, take); errPark != nil {
		return key, r, errPark
	}
	return key, r, err
}

// take returns a member that has ended, or an error. If there is neither, done is false.
func (s *WaitSet[K]) take() (key K, r WaitResult, done bool, err error) {
	if err := s.lock(); err != nil {
		return key, r, true, err
	}
	defer s.mu.Unlock()
	for {
		token, ok, err := epollNext(s.epoll)
		if !ok {
			return key, r, err != nil, err
		}
		m, ok := s.members[token]
		if !ok {
			continue
		}
		err = m.p.look(s.options, &r)
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
	tokens := s.tokens
	s.members, s.tokens = nil, nil
	s.mu.Unlock()
	// It waits for whoever is parked, and they may wait for the lock.
	err := s.parking.file.Close()
	for p := range tokens {
		p.release()
	}
	return err
}
