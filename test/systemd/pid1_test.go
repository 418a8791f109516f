//go:build linux

package systemd

import (
	"errors"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// arches are those of the programs that run as services: one that the kernel is of, and one of 32 bits.
var arches = []string{"amd64", "386"}

// A system is a container with the programs that run as services.
type system struct {
	*container
	sysfd, agent map[string]string // paths, by architecture
}

// TestSystemd runs all that takes systemd as PID 1 in one container. No two tests have units of
// the same name there.
func TestSystemd(t *testing.T) {
	s := system{boot(t), map[string]string{}, map[string]string{}}
	for _, arch := range arches {
		s.sysfd[arch] = s.install(t, "../../cmd/sysfd", arch)
		s.agent[arch] = s.install(t, "agent", arch)
	}
	for name, test := range map[string]func(*testing.T, system){
		"Sockets":                   testSockets,
		"Traffic":                   testTraffic,
		"Accept":                    testAccept,
		"TwoSocketUnits":            testTwoSocketUnits,
		"Wrappers":                  testWrappers,
		"PrivatePIDs":               testPrivatePIDs,
		"PrivatePIDs of libsystemd": testPrivatePIDsLibsystemd,

		"Ready":         testReady,
		"Status":        testStatus,
		"Barrier":       testBarrier,
		"Stopping":      testStopping,
		"Reload":        testReload,
		"ExtendTimeout": testExtendTimeout,
		"Watchdog":      testWatchdog,
		"Upgrade":       testUpgrade,
		"WatchdogShell": testWatchdogShell,
		"MainProcess":   testMainProcess,
		"NotifyAccess":  testNotifyAccess,
		"Store":         testStore,
		"Order":         testOrder,
		"Exec":          testExec,
		"ExecStored":    testExecStored,
		"ExecScheduled": testExecScheduled,

		"NotifierTaken":    testNotifierTaken,
		"WatchdogUpgrade":  testWatchdogUpgrade,
		"NotifyAccessExec": testNotifyAccessExec,
		"Proxy":            testProxy,

		"SocketActivate": testSocketActivate,
		"NotifyFork":     testNotifyFork,

		"Varlink": testVarlink,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// An agent is a service that does what the test says; see the program in directory agent.
type agent struct {
	sysfd.ProcessRef
	client *rpc.Client
}

// agents is where agents connect.
type agents struct {
	*net.UnixListener
	path string // in the container: the argument of each agent
}

// agents returns a place for agents to connect to.
func (s system) agents(t testing.TB, name string) agents {
	t.Helper()
	a := agents{path: filepath.Join("/run", name+".agents")}
	l, err := net.Listen("unix", s.path(a.path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(s.path(a.path), 0o666); err != nil {
		t.Fatal(err)
	}
	a.UnixListener = l.(*net.UnixListener)
	return a
}

// next waits for the next agent.
func (a agents) next(t testing.TB) *agent {
	t.Helper()
	a.SetDeadline(time.Now().Add(patience))
	conn, err := a.Accept()
	if err != nil {
		t.Fatalf("no agent: %v", err)
	}
	t.Cleanup(func() { conn.Close() }) // the agent ends
	next := &agent{client: rpc.NewClient(conn)}
	next.call(t, "Ref", 0, &next.ProcessRef)
	return next
}

// call has the agent do something.
func (a *agent) call(t testing.TB, method string, arg, reply any) {
	t.Helper()
	if err := a.try(method, arg, reply); err != nil {
		t.Fatalf("%s(%v): %v", method, arg, err)
	}
}

// try is call for what may fail.
func (a *agent) try(method string, arg, reply any) error {
	select {
	case call := <-a.client.Go("Agent."+method, arg, reply, nil).Done:
		return call.Error
	case <-time.After(2 * patience):
		return errors.New("no answer")
	}
}

// sends has the agent send something, and waits until systemd has dealt with it.
func (a *agent) sends(t testing.TB, method string, arg any) {
	t.Helper()
	var sent, barrier bool
	a.call(t, method, arg, &sent)
	a.call(t, "Barrier", patience, &barrier)
	if !sent || !barrier {
		t.Fatalf("%s(%v): sent: %v, barrier: %v", method, arg, sent, barrier)
	}
}
