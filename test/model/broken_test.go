package model

import (
	"regexp"
	"strings"
	"testing"
)

const (
	assertion = "assertion violated"
	forever   = "non-progress cycle"

	closeOwner = "d_step { ok = uses[i] > 0; if :: ok -> uses[i] = uses[i] + CLOSING :: else fi }"
	interrupts = "if :: parking[i] -> interrupt(i) :: else fi"

	// how look ends
	keep      = "ended[i] = true; final[i] = reaped;"
	afterKeep = " done = true; known = true\n" +
		"\t\t:: next == POLL_OTHER && life[i] == REAPED -> done = true\n" +
		"\t\t:: next != TAKE && life[i] == RUNS\n" +
		"\t\t:: else -> sawZombie(i)\n" +
		"\t\tfi;\n\t\tnext = 0;\n\t\tmu[i] = false\n\t}"
)

// Each is found, and as what it is.
func TestBroken(t *testing.T) {
	for _, b := range []struct {
		name          string
		old, new      string
		configuration string
		want          string
	}{
		{"parks before it has looked", "do\n\t:: attempt(true);", "do\n\t:: if :: m == 0 -> m = 1 :: else -> attempt(true) fi;",
			"other", assertion},
		{"a call is never released", "atomic { uses[f] = uses[f] - 1; last = uses[f] == CLOSING }", "skip",
			"child", assertion},
		{"await does not see that it is the last", "atomic { uses[f] = uses[f] - 1; last = uses[f] == CLOSING }", "uses[f] = uses[f] - 1",
			"child", assertion},
		{"the last closes while it reads", "\t\t:: refused\n\t\tfi", "\t\t:: refused\n\t\tfi;\n\t\tif :: last -> last = false; refused = !done; closeFD(f) :: else fi",
			"child", assertion},
		{"acquire in two steps", ":: atomic { f != SET -> acquire(f); refused = !ok }", ":: f != SET -> ok = uses[f] > 0; if :: ok -> uses[f] = uses[f] + 1 :: else fi; refused = !ok",
			"child", assertion},
		{"Close interrupts nobody", interrupts + ";", "",
			"held by a set", assertion},
		{"Close interrupts before it turns away", closeOwner, interrupts + ";\n\t" + closeOwner,
			"held by a set", assertion},
		{"a second Close counts as well", closeOwner, "d_step { ok = true; if :: uses[i] > 0 -> uses[i] = uses[i] + CLOSING :: else fi }",
			"closed twice", assertion},
		{"closeFD forgets the epoll instance", "if :: parking[i] -> closeFile(i) :: else fi;\n", "",
			"other", assertion},
		{"nobody waits for a turn", "!refused && !turn[f]", "!refused",
			"other", assertion},
		{"the turn ends before the deadline is reset", "setDeadline(f, false); unlock(turn[f]) }", "unlock(turn[f]) }\n\t\tsetDeadline(f, false)",
			"other, cancel", assertion},
		{"the deadline stays", "setDeadline(f, false);", "",
			"other, cancel", assertion},
		{"an interrupt under way is not awaited", "after[w] == RAN ->", "after[w] >= STARTED ->",
			"other, cancel", assertion},
		{"an interrupt counts as an event", "(closed[f] || expired[f]) -> failed = true; break", "closed[f] -> failed = true; break }\n\t\t:: atomic { !enough && expired[f]",
			"other, cancel", forever},
		{"an event is not taken away", "pdReady[f] -> pdReady[f] = false", "pdReady[f]",
			"other", forever},
		{"a result counts less than the context", "\trefused = refused || failed", "\tdone = done && !canceled[w];\n\trefused = refused || failed",
			"child, cancel", assertion},
		{"nobody tells of a zombie", "zombie[i] = true", "skip",
			"other", assertion},
		{"who is content with a zombie waits for a turn", "!refused && also && zombie[f]", "false",
			"other", assertion},
		{"a child that is traced is not polled for others", "(has(EXITED, w) || parking[i] -> POLL_HELD : 0)", "(has(EXITED, w) -> POLL_HELD : 0)",
			"traced", assertion},
		{"the status is kept after the lock", keep + afterKeep, afterKeep + "\n\t\tatomic { if :: known -> " + keep + " :: else fi }",
			"child", assertion},
		{"the status is not kept", keep, "",
			"child", assertion},
		{"park without a lock", "if :: parking[f] :: else -> mu[f] = true;", "if :: parking[f] :: else ->",
			"other", assertion},
		{"a set does not acquire", "inline add(i) {\n\tacquire(i);", "inline add(i) {\n\tok = true;",
			"set changes", assertion},
		{"a set that is closed takes members", ":: atomic { setOpen ->\n", ":: atomic { true ->\n",
			"set closes", assertion},
		{"a member is released twice", "taken[i]++ }\n", "taken[i]++ }\n\trelease(i);\n",
			"set changes", assertion},
		{"a member is released before it leaves the epoll instance", "\td_step { assert(pidfd[i] && member[i]);", "\trelease(i);\n\tuses[i] = uses[i] + 1;\n\td_step { assert(pidfd[i] && member[i]);",
			"set changes", assertion},
		{"a member stays in the set", "if :: done -> remove(m);", "if :: done -> taken[m]++;",
			"set", assertion},
		{"Next asks for one event", "leaveSet(parked); break } :: else fi", "leaveSet(parked); break } :: else -> leaveSet(parked); break fi",
			"set of others", assertion},
		{"Next fetches what another must be woken for", "-> many = parked", "-> many = true",
			"set", assertion},
		{"Next goes with the turn", "if :: many && !parked -> unlock(turn[SET]) :: else fi;", "",
			"set", assertion},
		{"a set closes its file under its lock", "\t\tunlock(setMu);\n\t\tcloseFile(SET);", "\t\tcloseFile(SET);\n\t\tunlock(setMu);",
			"set closes", assertion},
		{"a set that is closed keeps its members", "member[m] = false; release(m)", "member[m] = false",
			"set closes", assertion},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			model := readModel(t)
			if n := strings.Count(model, b.old); n != 1 {
				t.Fatalf("this is in the model %d times: %q", n, b.old)
			}
			v := newVerifier(t, strings.Replace(model, b.old, b.new, 1), b.configuration)
			explore := v.assertions
			if b.want == forever {
				explore = v.cycles
			}
			found := regexp.MustCompile(`(?m)^pan:1: .*`).FindString(explore())
			t.Log(found)
			if !strings.HasPrefix(found, "pan:1: "+b.want) {
				t.Error("this was not found")
			}
		})
	}
}
