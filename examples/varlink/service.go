//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sysfd/sysfd"
	"github.com/varlink/go/varlink"
)

const interfaceName = "io.github.sysfd.Process"

//go:embed io.github.sysfd.Process.varlink
var description string

// processes is the interface.
type processes struct{ only callers }

// callers are the callers that are answered.
type callers struct {
	uids   []uint32 // of these users; nil = of all
	cgroup *cgroup  // in this cgroup and below; nil = in all
}

// A processID is a process as systemd writes it: its type ProcessId.
type processID struct {
	PID          int           `json:"pid"`
	ID           sysfd.PidFDID `json:"pidfdId,omitzero"`
	StartTime    uint64        `json:"-"`
	BootID       sysfd.BootID  `json:"bootId,omitzero"`
	PIDNamespace uint32        `json:"-"`
}

type failure struct {
	Reason string `json:"reason"`
}

func newService(only callers) (*varlink.Service, error) {
	service, err := varlink.NewService("sysfd", "Example of a Varlink service", "1", "https://github.com/sysfd/sysfd")
	if err != nil {
		return nil, err
	}
	return service, service.RegisterInterface(&processes{only})
}

func (*processes) VarlinkGetName() string        { return interfaceName }
func (*processes) VarlinkGetDescription() string { return description }

// VarlinkDispatch answers a call. An error of it closes the connection.
func (s *processes) VarlinkDispatch(ctx context.Context, call varlink.Call, method string) error {
	c := call.Conn.(varlink.GetNetConn).NetConn().(*client)
	if err := s.admit(c); err != nil {
		return call.ReplyError(ctx, interfaceName+".Refused", failure{err.Error()})
	}
	switch method {
	case "WhoAmI":
		return whoAmI(ctx, call, c)
	case "Watch":
		return watch(ctx, call, c)
	}
	return call.ReplyMethodNotFound(ctx, interfaceName+"."+method)
}

// admit returns why the caller is not answered, or nil.
func (s *processes) admit(c *client) error {
	if s.only.uids != nil {
		// Not by the pidfd: the process is root's once it has executed a setuid program.
		switch {
		case c.userErr != nil:
			return fmt.Errorf("the caller's user is not known: %w", c.userErr)
		case !slices.Contains(s.only.uids, c.user.Uid):
			return fmt.Errorf("user %d opened the connection and is not answered", c.user.Uid)
		}
	}
	switch {
	case s.only.cgroup == nil:
		return nil
	case c.peer == nil:
		return fmt.Errorf("the caller is not known: %w", c.peerErr)
	}
	inside, err := s.only.cgroup.holds(c.peer)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return errors.New("the process that opened the connection has ended")
	case err != nil:
		return fmt.Errorf("whether the caller is in cgroup %s is not known: %w", s.only.cgroup, err)
	case !inside:
		return fmt.Errorf("the caller is not in cgroup %s", s.only.cgroup)
	}
	return nil
}

func fail(ctx context.Context, call varlink.Call, err error) error {
	return call.ReplyError(ctx, interfaceName+".Failed", failure{err.Error()})
}

func whoAmI(ctx context.Context, call varlink.Call, c *client) error {
	var reply struct {
		Process  processID       `json:"process"`
		UID      uint32          `json:"uid"`
		GID      uint32          `json:"gid"`
		CgroupID *sysfd.CgroupID `json:"cgroupId,omitempty"`
	}
	if err := errors.Join(c.peerErr, c.userErr); err != nil {
		return fail(ctx, call, err)
	}
	ref, err := c.peer.Ref()
	if err != nil {
		return fail(ctx, call, err)
	}
	reply.Process, reply.UID, reply.GID = processID(ref), c.user.Uid, c.user.Gid
	info, err := c.peer.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fail(ctx, call, err)
	}
	if id, ok := info.CgroupID(); ok {
		reply.CgroupID = &id
	}
	return call.Reply(ctx, reply)
}

// event is a reply of Watch.
type event struct {
	State      string `json:"state"`
	ExitStatus *int   `json:"exitStatus,omitempty"`
	Signal     *int   `json:"signal,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

func watch(ctx context.Context, call varlink.Call, c *client) error {
	if call.IsOneway() {
		return nil
	}
	var in struct {
		Process processID `json:"process"`
	}
	if err := call.GetParameters(&in); err != nil || in.Process.PID <= 0 || in.Process.ID == 0 {
		return call.ReplyInvalidParameter(ctx, "process")
	}
	p, err := sysfd.ProcessRef(in.Process).Open()
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return call.ReplyError(ctx, interfaceName+".NoSuchProcess", in)
	case err != nil:
		return fail(ctx, call, err)
	}
	defer p.Close()
	ctx, stop, err := c.untilGone(ctx)
	if err != nil {
		return err
	}
	defer stop()
	r, err := p.TryWait(0)
	if err == nil && !r.Ended {
		if call.WantsMore() {
			call.Continues = true
			if err := call.Reply(ctx, event{State: "running"}); err != nil {
				return err
			}
			call.Continues = false
		}
		r, err = p.Wait(ctx, 0)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // nobody waits for the answer
	case err != nil:
		return fail(ctx, call, err)
	}
	return call.Reply(ctx, ending(r))
}

// ending returns how a process ended.
func ending(r sysfd.WaitResult) event {
	switch {
	case r.Unknown != nil:
		return event{State: "unknown", Reason: r.Unknown.Error()}
	case r.Status.Signaled():
		signal := int(r.Status.Signal())
		return event{State: "signaled", Signal: &signal}
	}
	status := r.Status.ExitStatus()
	return event{State: "exited", ExitStatus: &status}
}
