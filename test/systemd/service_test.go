//go:build linux

package systemd

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// startAgent starts a service that is an agent and of Type=notify, if the lines do not say
// otherwise. It is not ready then.
func (s system) startAgent(t testing.TB, name, service string) (*agent, agents) {
	t.Helper()
	a := s.agents(t, name)
	s.units(t, map[string]string{
		name + ".service": "[Service]\nType=notify\nExecStart=" + s.agent["amd64"] + " " + a.path + "\n" + service + "\n",
	})
	s.run(t, "systemctl", "start", "--no-block", name+".service")
	return a.next(t), a
}

// startReadyAgent is startAgent for a service that is ready.
func (s system) startReadyAgent(t testing.TB, name, service string) (*agent, agents) {
	t.Helper()
	a, as := s.startAgent(t, name, service)
	a.sends(t, "Notify", []string{sysfd.NotifyReady})
	s.shows(t, name+".service", "ActiveState", "active")
	return a, as
}

func testReady(t *testing.T, s system) {
	for name, service := range map[string]string{
		"root":         "",
		"User":         "User=nobody",
		"DynamicUser":  "DynamicUser=yes",
		"PrivateUsers": "PrivateUsers=yes",
		"PrivatePIDs":  "PrivatePIDs=yes",
		"sandbox":      "DynamicUser=yes\nProtectProc=invisible\nProcSubset=pid\nPrivateNetwork=yes\nSystemCallFilter=@system-service\nRestrictAddressFamilies=AF_UNIX",
		"386":          "ExecStart=\nExecStart=" + s.agent["386"] + " /run/ready-386.agents",
	} {
		t.Run(name, func(t *testing.T) {
			unit := "ready-" + name + ".service"
			a, _ := s.startAgent(t, "ready-"+name, service)
			a.sends(t, "Notify", []string{sysfd.NotifyStatus("not yet")})
			s.shows(t, unit, "ActiveState", "activating")
			a.sends(t, "Notify", []string{sysfd.NotifyReady, sysfd.NotifyStatus("ready")})
			s.shows(t, unit, "ActiveState", "active")
			s.shows(t, unit, "StatusText", "ready")
		})
	}
}

func testStatus(t *testing.T, s system) {
	a, _ := s.startReadyAgent(t, "status", "")
	for _, text := range []string{"plain", "Grüße, 世界 = 100 %", ""} {
		a.sends(t, "Notify", []string{sysfd.NotifyStatus(text)})
		s.shows(t, "status.service", "StatusText", text)
	}
	const most = 4096 - len("STATUS=")
	full := strings.Repeat("y", most)
	for text, want := range map[string]string{
		strings.Repeat("z", most+1): full, // not taken
		"not UTF-8: \xff":           "",   // not taken, but the old one is dropped
		"no character: \ufffe":      "",
		"nor this: \ufdd0":          "",
	} {
		a.sends(t, "Notify", []string{"STATUS=" + full})
		s.shows(t, "status.service", "StatusText", full)
		a.sends(t, "Notify", []string{"STATUS=" + text})
		s.shows(t, "status.service", "StatusText", want)
	}
	for text, want := range map[string]string{
		"two\nlines\n":              "two lines",
		"not UTF-8: \xff":           "not UTF-8: \ufffd",
		"\ufffe is no character":    "\ufffd is no character",
		strings.Repeat("z", most+1): strings.Repeat("z", 3<<10-len("…")) + "…",
	} {
		a.sends(t, "Notify", []string{"STATUS=before"})
		a.sends(t, "Notify", []string{sysfd.NotifyStatus(text)})
		s.shows(t, "status.service", "StatusText", want)
	}
	a.sends(t, "Notify", []string{"STATUS=several\nERRNO=5\n"})
	s.shows(t, "status.service", "StatusText", "several")
	s.shows(t, "status.service", "StatusErrno", "5")
	a.sends(t, "Notify", []string{sysfd.NotifyErrno(syscall.ENOSPC)})
	s.shows(t, "status.service", "StatusErrno", "28")
}

// A barrier holds as long as systemd does nothing.
func testBarrier(t *testing.T, s system) {
	a, _ := s.startReadyAgent(t, "barrier", "")
	if err := syscall.Kill(s.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(s.pid, syscall.SIGCONT)
	var sent bool
	err := a.try("Barrier", 100*time.Millisecond, &sent)
	if err == nil || err.Error() != context.DeadlineExceeded.Error() {
		t.Errorf("while systemd is stopped: %v", err)
	}
	a.call(t, "Notify", []string{sysfd.NotifyStatus("behind it")}, &sent)
	if err := syscall.Kill(s.pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.call(t, "Barrier", patience, &sent)
	s.shows(t, "barrier.service", "StatusText", "behind it")
}

func testStopping(t *testing.T, s system) {
	a, _ := s.startReadyAgent(t, "stopping", "")
	a.sends(t, "Notify", []string{sysfd.NotifyStopping})
	s.shows(t, "stopping.service", "ActiveState", "deactivating")
}

func testReload(t *testing.T, s system) {
	a, _ := s.startReadyAgent(t, "reload", "Type=notify-reload")
	for range 2 {
		reload := s.command("systemctl", "reload", "reload.service")
		if err := reload.Start(); err != nil {
			t.Fatal(err)
		}
		a.call(t, "Hangup", 0, new(int))
		s.shows(t, "reload.service", "SubState", "reload-signal")
		a.sends(t, "NotifyReloading", []string{sysfd.NotifyStatus("reloading")})
		s.shows(t, "reload.service", "SubState", "reload-notify")
		a.sends(t, "Notify", []string{sysfd.NotifyReady})
		if err := reload.Wait(); err != nil {
			t.Errorf("systemctl reload: %v", err)
		}
		s.shows(t, "reload.service", "SubState", "running")
	}
}

// Of two services that are not ready in time, the one that asked for more time gets it.
func testExtendTimeout(t *testing.T, s system) {
	t.Parallel() // with the other test that waits long
	const service = "TimeoutStartSec=6"
	patient, _ := s.startAgent(t, "extended", service)
	patient.sends(t, "Notify", []string{sysfd.NotifyExtendTimeout(10 * time.Minute)})
	s.startAgent(t, "not-extended", service)
	s.await(t, "not-extended.service", "Result", "timeout")
	s.shows(t, "extended.service", "ActiveState", "activating")
	patient.sends(t, "Notify", []string{sysfd.NotifyReady})
	s.shows(t, "extended.service", "ActiveState", "active")
}

// Of two services with a watchdog, the one that feeds it lives.
func testWatchdog(t *testing.T, s system) {
	t.Parallel()
	const service = "WatchdogSec=6\nWatchdogSignal=KILL"
	fed, _ := s.startReadyAgent(t, "fed", service)
	var interval time.Duration
	if fed.call(t, "Feed", 0, &interval); interval != 6*time.Second {
		t.Errorf("the interval is %v", interval)
	}
	s.startReadyAgent(t, "starved", service)
	s.await(t, "starved.service", "Result", "watchdog")
	s.shows(t, "fed.service", "ActiveState", "active")
	fed.call(t, "Starve", 0, new(int))
	s.await(t, "fed.service", "Result", "watchdog")

	t.Run("trigger", func(t *testing.T) {
		a, _ := s.startReadyAgent(t, "trigger", "WatchdogSec=1h\nWatchdogSignal=KILL")
		a.try("Notify", []string{sysfd.NotifyWatchdogTrigger}, new(bool)) // it may be dead before it can answer
		s.await(t, "trigger.service", "Result", "watchdog")
	})
	t.Run("none", func(t *testing.T) {
		a, _ := s.startReadyAgent(t, "unwatched", "")
		var interval time.Duration
		if a.call(t, "Feed", 0, &interval); interval != 0 {
			t.Errorf("the interval is %v", interval)
		}
	})
	t.Run("child", func(t *testing.T) {
		a, as := s.startReadyAgent(t, "watched-parent", "WatchdogSec=1h")
		a.call(t, "Fork", 0, new(int))
		var interval time.Duration
		if as.next(t).call(t, "Feed", 0, &interval); interval != 0 {
			t.Errorf("the interval is %v", interval)
		}
	})
}

// A successor feeds the watchdog in the place of the one that started it, which may go.
func testUpgrade(t *testing.T, s system) {
	t.Parallel()
	for _, access := range []string{"main", "all"} {
		t.Run(access, func(t *testing.T) {
			name := "upgrade-" + access
			as := s.agents(t, name)
			s.units(t, map[string]string{
				name + ".socket": "[Socket]\nFileDescriptorName=door\nListenStream=/run/" + name + "\n",
				name + ".service": "[Service]\nType=notify\nNotifyAccess=" + access + "\nWatchdogSec=6\nWatchdogSignal=KILL\nExecStart=" +
					s.agent["amd64"] + " " + as.path + "\n",
			})
			s.run(t, "systemctl", "start", name+".socket")
			s.run(t, "systemctl", "start", "--no-block", name+".service")
			first := as.next(t)
			first.sends(t, "Notify", []string{sysfd.NotifyReady})
			var interval time.Duration
			first.call(t, "Feed", 0, &interval)
			var sent bool
			if first.call(t, "Succeed", 0, &sent); !sent {
				t.Fatal("nothing was sent")
			}
			second := as.next(t)
			if second.call(t, "Feed", 0, &interval); interval != 6*time.Second {
				t.Errorf("the interval of the successor is %v", interval)
			}
			first.call(t, "Starve", 0, new(int))
			s.shows(t, name+".service", "MainPID", strconv.Itoa(second.PID))
			first.client.Close() // and it ends
			time.Sleep(9 * time.Second)
			s.shows(t, name+".service", "ActiveState", "active")
			var names []string
			if second.call(t, "Names", 0, &names); !slices.Equal(names, []string{"door"}) {
				t.Errorf("it got %q", names)
			}
			second.call(t, "Starve", 0, new(int))
			s.await(t, name+".service", "Result", "watchdog")
		})
	}
}

// Behind a shell, which is the main process, `sysfd exec` renews whom the watchdog is told of. It
// is of use where systemd takes messages of all processes.
func testWatchdogShell(t *testing.T, s system) {
	t.Parallel()
	for access, heeded := range map[string]bool{"main": false, "all": true} {
		for wrapper, feeds := range map[string]bool{"": false, s.sysfd["amd64"] + " exec -- ": true} {
			t.Run(access+", sysfd exec "+strconv.FormatBool(feeds), func(t *testing.T) {
				name := "shell-" + access + "-" + strconv.FormatBool(feeds)
				as := s.agents(t, name)
				script := "/run/" + name + ".sh"
				s.write(t, script, wrapper+s.agent["amd64"]+" "+as.path+"; true\n")
				s.units(t, map[string]string{name + ".service": "[Service]\nNotifyAccess=" + access +
					"\nWatchdogSec=6\nWatchdogSignal=KILL\nExecStart=/bin/sh " + script + "\n"})
				s.run(t, "systemctl", "start", name+".service")
				a := as.next(t)
				var interval time.Duration
				if a.call(t, "Feed", 0, &interval); (interval == 6*time.Second) != feeds {
					t.Errorf("the interval is %v", interval)
				}
				if feeds && heeded {
					time.Sleep(9 * time.Second)
					s.shows(t, name+".service", "ActiveState", "active")
					a.call(t, "Starve", 0, new(int))
				}
				s.await(t, name+".service", "Result", "watchdog")
			})
		}
	}
}

func testMainProcess(t *testing.T, s system) {
	for method, what := range map[string]string{"NotifyMainProcess": "its ID", "NotifyMainPidFD": "its pidfd"} {
		t.Run(method, func(t *testing.T) {
			name := "main-" + method
			first, as := s.startReadyAgent(t, name, "NotifyAccess=all")
			first.call(t, "Fork", 0, new(int))
			second := as.next(t)
			isMain := func(a *agent, why string) {
				t.Helper()
				if got := s.show(t, name+".service", "MainPID"); got != strconv.Itoa(a.PID) {
					t.Errorf("%s: the main process is %s, want %s", why, got, strconv.Itoa(a.PID))
				}
			}
			isMain(first, "at first")
			if method == "NotifyMainProcess" {
				wrong := second.ProcessRef
				wrong.ID = first.ID
				first.sends(t, method, wrong)
				isMain(first, "wrong ID")
				// The journal takes its time.
				journal := ""
				for end := time.Now().Add(time.Minute); !strings.Contains(journal, "MAINPIDFDID"); time.Sleep(50 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("the journal does not tell of the wrong ID:\n%s", journal)
					}
					journal = s.run(t, "journalctl", "--no-pager", "--unit="+name)
				}
			}
			first.sends(t, method, second.ProcessRef)
			isMain(second, what)
			second.sends(t, method, first.ProcessRef)
			isMain(first, what+", and back")
		})
	}
}

// Messages of a process that is not the main one.
func testNotifyAccess(t *testing.T, s system) {
	for access, heeded := range map[string]bool{"main": false, "all": true} {
		t.Run(access, func(t *testing.T) {
			name := "access-" + access
			first, as := s.startReadyAgent(t, name, "NotifyAccess="+access)
			first.sends(t, "Notify", []string{sysfd.NotifyStatus("of the main process")})
			first.call(t, "Fork", 0, new(int))
			as.next(t).sends(t, "Notify", []string{sysfd.NotifyStatus("of its child")})
			want := "of the main process"
			if heeded {
				want = "of its child"
			}
			s.shows(t, name+".service", "StatusText", want)
		})
	}
}

// What a service has stored is given to its next process.
func testStore(t *testing.T, s system) {
	a, as := s.startReadyAgent(t, "store", "FileDescriptorStoreMax=4")
	stored := func() (stored []string) {
		t.Helper()
		a.call(t, "Stored", 0, &stored)
		return stored
	}
	restart := func() {
		t.Helper()
		s.run(t, "systemctl", "restart", "--no-block", "store.service")
		a = as.next(t)
		a.sends(t, "Notify", []string{sysfd.NotifyReady})
	}
	var max string
	if a.call(t, "Getenv", "FDSTORE", &max); max != "4" {
		t.Errorf("FDSTORE=%q", max)
	}
	if got := stored(); got != nil {
		t.Fatalf("at first there is %q", got)
	}

	for _, nameAndText := range [][2]string{{"a", "1"}, {"b c", "2"}, {"", "3"}, {"a", "4"}, {"late", "too many"}} {
		a.sends(t, "Store", nameAndText)
	}
	s.shows(t, "store.service", "NFileDescriptorStore", "4")
	restart()
	if got, want := stored(), []string{"a=4", "stored=3", "b c=2", "a=1"}; !slices.Equal(got, want) {
		t.Errorf("after a restart: %q, want %q", got, want)
	}

	a.sends(t, "RemoveStored", "a")
	a.sends(t, "StoreHungUp", []string{"hung up"})
	s.shows(t, "store.service", "NFileDescriptorStore", "2")
	a.sends(t, "StoreHungUp", []string{"kept", sysfd.NotifyNoPoll})
	s.shows(t, "store.service", "NFileDescriptorStore", "3")
	restart()
	if got, want := stored(), []string{"kept=", "stored=3", "b c=2"}; !slices.Equal(got, want) {
		t.Errorf("after another restart: %q, want %q", got, want)
	}

	a.sends(t, "RemoveStored", "")
	s.shows(t, "store.service", "NFileDescriptorStore", "2")

	t.Run("many", func(t *testing.T) {
		const most = 253 / 2
		a, _ := s.startReadyAgent(t, "store-many", "FileDescriptorStoreMax=1000")
		a.sends(t, "StoreMany", most)
		s.shows(t, "store-many.service", "NFileDescriptorStore", strconv.Itoa(most))
	})
}

// Descriptors come in the order of their sources.
func testOrder(t *testing.T, s system) {
	as := s.agents(t, "order")
	s.units(t, map[string]string{
		"order.socket": "[Socket]\nFileDescriptorName=door\nListenStream=/run/order\n",
		"order.service": "[Service]\nExecStart=" + s.agent["amd64"] + " " + as.path +
			"\nFileDescriptorStoreMax=2\nOpenFile=/etc/group:opened\n",
	})
	s.run(t, "systemctl", "start", "order.socket", "order.service")
	a := as.next(t)
	a.sends(t, "Store", [2]string{"older", "1"})
	a.sends(t, "Store", [2]string{"newer", "2"})
	s.run(t, "systemctl", "restart", "--no-block", "order.service")
	var names []string
	as.next(t).call(t, "Names", 0, &names)
	if want := []string{"door", "newer", "older", "opened"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

// A service that becomes another program passes on what it got.
func testExec(t *testing.T, s system) {
	s.forEachArch(t, "become", func(t *testing.T, name, listen string) {
		as := s.agents(t, name)
		output := "/run/" + name + ".given"
		s.units(t, map[string]string{
			name + ".socket": "[Socket]\nFileDescriptorName=door\nListenStream=/run/" + name + "\nListenFIFO=/run/" + name + ".fifo\n",
			name + ".service": "[Service]\nExecStart=" + s.agent["386"] + " " + as.path +
				"\nStandardOutput=truncate:" + output + "\nOpenFile=/etc/group\n",
		})
		s.run(t, "systemctl", "start", name+".socket", name+".service")
		as.next(t).try("Exec", strings.Fields(listen), new(int))
		s.await(t, name+".service", "ActiveState", "inactive")
		parseGiven(t, s.read(t, output)).has(t, "door: socket unix stream /run/"+name+" listening", "door: fifo", "group: file")
	})
}

// Descriptors from the store go through ExecListenFDs, under names that systemd itself does not give. The watchdog
// means the new program too.
func testExecStored(t *testing.T, s system) {
	a, as := s.startReadyAgent(t, "exec-stored", "FileDescriptorStoreMax=4\nWatchdogSec=1h")
	a.sends(t, "Store", [2]string{"a b", "1"})
	a.sends(t, "Store", [2]string{"c", "2"})
	s.run(t, "systemctl", "restart", "--no-block", "exec-stored.service")
	a = as.next(t)
	a.sends(t, "Notify", []string{sysfd.NotifyReady})
	for _, want := range [][]string{{`:\größe:c=2`, `:\größe:a b=1`}, {`:\größe::\größe:c=2`, `:\größe::\größe:a b=1`}} {
		a.try("ExecRenamed", `:\größe:`, new(int))
		next := as.next(t)
		if next.ProcessRef != a.ProcessRef {
			t.Errorf("it was %v, and is %v", a.ProcessRef, next.ProcessRef)
		}
		a = next
		var stored []string
		if a.call(t, "Stored", 0, &stored); !slices.Equal(stored, want) {
			t.Errorf("%q, want %q", stored, want)
		}
		var interval time.Duration
		if a.call(t, "Feed", 0, &interval); interval != time.Hour {
			t.Errorf("the interval is %v", interval)
		}
	}
	a.sends(t, "Notify", []string{sysfd.NotifyStatus("another program")})
	s.shows(t, "exec-stored.service", "StatusText", "another program")
}

// The scheduling that the unit asks for is that of the program which the service becomes.
func testExecScheduled(t *testing.T, s system) {
	as := s.agents(t, "exec-scheduled")
	const output = "/run/exec-scheduled.output"
	s.units(t, map[string]string{
		"exec-scheduled.socket": "[Socket]\nListenStream=/run/exec-scheduled\n",
		"exec-scheduled.service": "[Service]\nExecStart=" + s.agent["amd64"] + " " + as.path + "\nStandardOutput=truncate:" + output +
			"\nCPUSchedulingPolicy=rr\nCPUSchedulingPriority=3\nCPUSchedulingResetOnFork=yes\nIOSchedulingClass=idle\nCPUAffinity=0\n",
	})
	s.run(t, "systemctl", "start", "exec-scheduled.socket", "exec-scheduled.service")
	as.next(t).try("Exec", []string{"/bin/sh", "-c", "chrt -p $$; ionice -p $$; taskset -p $$"}, new(int))
	s.await(t, "exec-scheduled.service", "ActiveState", "inactive")
	text := s.read(t, output)
	for _, want := range []string{"SCHED_RR|SCHED_RESET_ON_FORK", "priority: 3", "idle", "affinity mask: 1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}
