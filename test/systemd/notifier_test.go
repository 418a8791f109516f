//go:build linux

package systemd

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// takeNotifier has an agent take its variables, which must leave none.
func (a *agent) takeNotifier(t testing.TB) (interval time.Duration) {
	t.Helper()
	a.call(t, "TakeNotifier", 0, &interval)
	a.hasNoVariables(t)
	return interval
}

func (a *agent) hasNoVariables(t testing.TB) {
	t.Helper()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		var value string
		if a.call(t, "Getenv", name, &value); value != "" {
			t.Errorf("%s=%q", name, value)
		}
	}
}

// tells has an agent send by what it has taken.
func (a *agent) tells(t testing.TB, assignments ...string) {
	t.Helper()
	var sent bool
	if a.call(t, "Tell", assignments, &sent); !sent {
		t.Fatalf("%q was not sent", assignments)
	}
}

// A service whose children cannot notify goes on notifying itself.
func testNotifierTaken(t *testing.T, s system) {
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			name := "taken-" + arch
			a, as := s.startAgent(t, name, "WatchdogSec=1h\nNotifyAccess=all\nExecStart=\nExecStart="+s.agent[arch]+" /run/"+name+".agents")
			if interval := a.takeNotifier(t); interval != time.Hour {
				t.Errorf("the interval is %v", interval)
			}
			a.call(t, "Fork", 0, new(int))
			child := as.next(t)
			child.hasNoVariables(t)
			var sent bool
			if child.call(t, "Notify", []string{sysfd.NotifyReady}, &sent); sent {
				t.Error("the child has sent something")
			}
			s.shows(t, name+".service", "ActiveState", "activating")
			a.tells(t, "READY=1\nSTATUS=after the child\n")
			s.shows(t, name+".service", "ActiveState", "active")
			s.shows(t, name+".service", "StatusText", "after the child")
		})
	}
}

// The watchdog is fed by what a service is replaced by, be it the same process or another one.
func testWatchdogUpgrade(t *testing.T, s system) {
	t.Parallel()
	for _, how := range []string{"Become", "HandOver"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			const interval = 4 * time.Second
			name := "watched-" + how
			unit := name + ".service"
			a, as := s.startAgent(t, name, "WatchdogSec=4\nWatchdogSignal=KILL")
			for range 2 {
				if got := a.takeNotifier(t); got != interval {
					t.Errorf("the interval is %v", got)
				}
				a.tells(t, sysfd.NotifyReady)
				a.call(t, "Watch", 0, new(int))
				time.Sleep(interval * 3 / 2)
				s.shows(t, unit, "ActiveState", "active")
				old := a
				if how == "Become" {
					a.try(how, 0, new(int)) // it cannot answer
				} else {
					a.call(t, how, 0, new(int))
				}
				a = as.next(t)
				if same := a.PID == old.PID; same != (how == "Become") {
					t.Errorf("process %d, then %d", old.PID, a.PID)
				}
				old.client.Close()
			}
			a.takeNotifier(t)
			a.call(t, "Watch", 0, new(int))
			time.Sleep(interval * 3 / 2)
			s.shows(t, unit, "ActiveState", "active")
			a.call(t, "Unwatch", 0, new(int))
			s.await(t, unit, "Result", "watchdog")
		})
	}
}

// Whose messages systemd heeds: those of the main process, of one that it has started itself for
// ExecReload=, and of a child.
func testNotifyAccessExec(t *testing.T, s system) {
	for access, heeded := range map[string]string{"main": "main", "exec": "main, control", "all": "main, control, child"} {
		t.Run(access, func(t *testing.T) {
			name := "access-of-" + access
			a, as := s.startReadyAgent(t, name, "NotifyAccess="+access+"\nExecReload="+s.agent["amd64"]+" /run/"+name+".agents")
			told := ""
			ask := func(who string, a *agent) {
				t.Helper()
				if who == "control" && access == "main" { // systemd gives it no address
					a.hasNoVariables(t)
					return
				}
				before := s.show(t, name+".service", "StatusText")
				a.sends(t, "Notify", []string{sysfd.NotifyStatus(who)})
				switch got := s.show(t, name+".service", "StatusText"); {
				case got == who && told == "":
					told = who
				case got == who:
					told += ", " + who
				case got != before:
					t.Errorf("%s: the status is %q", who, got)
				}
			}
			ask("main", a)
			reload := s.command("systemctl", "reload", name+".service")
			if err := reload.Start(); err != nil {
				t.Fatal(err)
			}
			control := as.next(t)
			ask("control", control)
			control.client.Close()
			if err := reload.Wait(); err != nil {
				t.Error(err)
			}
			a.call(t, "Fork", 0, new(int))
			ask("child", as.next(t))
			if told != heeded {
				t.Errorf("it heeds %s, want %s", told, heeded)
			}
		})
	}
}

// A proxy between systemd and a program, which takes messages of the proxy alone.
func testProxy(t *testing.T, s system) {
	proxy, as := s.startAgent(t, "proxy", "NotifyAccess=main\nFileDescriptorStoreMax=4")
	proxy.takeNotifier(t)
	proxy.call(t, "Proxy", "/run/proxy.notify", new(int))
	a := as.next(t)
	a.sends(t, "Notify", []string{sysfd.NotifyStatus("not yet")})
	s.shows(t, "proxy.service", "StatusText", "not yet")
	s.shows(t, "proxy.service", "ActiveState", "activating")
	a.sends(t, "Notify", []string{"READY=1\nSTATUS=ready"})
	s.shows(t, "proxy.service", "ActiveState", "active")
	s.shows(t, "proxy.service", "StatusText", "ready")
	for _, nameAndText := range [][2]string{{"a", "1"}, {"b c", "2"}} {
		a.sends(t, "Store", nameAndText)
	}
	s.shows(t, "proxy.service", "NFileDescriptorStore", "2")

	// The barrier is systemd's, not the proxy's.
	if err := syscall.Kill(s.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(s.pid, syscall.SIGCONT)
	var sent bool
	if err := a.try("Barrier", 200*time.Millisecond, &sent); err == nil || err.Error() != context.DeadlineExceeded.Error() {
		t.Errorf("while systemd is stopped: %v", err)
	}
	if err := syscall.Kill(s.pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.sends(t, "Notify", []string{sysfd.NotifyStatus("behind it")})
	s.shows(t, "proxy.service", "StatusText", "behind it")

	s.run(t, "systemctl", "restart", "--no-block", "proxy.service")
	var stored []string
	as.next(t).call(t, "Stored", 0, &stored)
	if len(stored) != 2 || stored[0] != "b c=2" || stored[1] != "a=1" {
		t.Errorf("after a restart: %q", stored)
	}
}
