/*
 * The protocol of the owner of a pidfd, of PidFD.Wait and of WaitSet, for spin. model_test.go has
 * it explored to the end in several configurations, and then edits it, to see that each way
 * to break the protocol is found.
 *
 * A step is what the other goroutines can see as one: an access to what is shared, with what comes
 * of it, a mutex that is locked and what is done first under it.
 *
 * WaitBlocking is not here: who holds a thread has acquired the pidfd meanwhile, and then waits as
 * the others do.
 *
 * A comment that begins with "Go:" is about a function of the root package, and lists calls in the
 * order in which they are written there. The test compares.
 *
 * A configuration defines
 *   PIDFDS   how many there are; the following sets have a bit for each
 *   LIVES, REAPS   whose process may never end, and whose may be reaped by someone else; if its bit is in
 *            REAPS alone it is reaped for certain
 *   MEMBERS, LATE, REMOVES   which are in a WaitSet, which of these are added while others wait, or may be removed
 *   CALLS    how many calls wait; the following sets have a bit for each
 *   WAIT     which are a PidFD.Wait for pidfd 0; the others are a WaitSet.Next
 *   EXITED, NO_REAP, CANCEL   which have the option WaitExited, WaitNoReap, or a context that may be canceled
 *   CHILD    whether the processes are children
 *   TRACED   whether a tracer at first keeps them, once ended, from being waited for
 *   OWN      whether a Wait parks on the pidfd itself (PIDFD_NONBLOCK), not on an epoll instance
 *   CLOSERS  how many may close pidfd 0
 *   SET_CLOSER   whether the set may be closed
 */
#define SET PIDFDS		/* f is the file that pidfd f parks on; this one is the set's */
#define FILES (PIDFDS + 1)
#define has(bits, n) (((bits) >> (n)) & 1)
#define lock(mutex) atomic { !mutex -> mutex = true }
#define unlock(mutex) mutex = false

/* The kernel. A process that is HELD is a zombie of which waitid(2) does not tell yet. */
#define RUNS 0
#define HELD 1
#define ZOMBIE 2
#define REAPED 3
byte life[PIDFDS];
bool pidfd[PIDFDS], epoll[FILES];		/* open descriptors */
bool watched[PIDFDS], event[PIDFDS];	/* in the epoll instance of the set: members, and events that are not fetched */

/* os.File and the poller of the runtime */
bool closed[FILES], reading[FILES], destroyed[FILES];
bool expired[FILES];	/* the read deadline */
bool edge[FILES];		/* an event that the poller has not fetched */
bool pdReady[FILES];	/* one that it has, for the next to park: parking takes it away */

/* PidFD, parking, WaitSet */
#define CLOSING (-64)
short uses[PIDFDS];
bool mu[PIDFDS], parking[PIDFDS], zombie[PIDFDS], turn[FILES];
bool ended[PIDFDS], final[PIDFDS];	/* PidFD.ended, and Reaped in it */
bool setMu, setOpen, member[PIDFDS];
bool rest[PIDFDS];		/* events that were fetched and not looked at */

/* Calls that wait, and their contexts */
#define SCHEDULED 1
#define STOPPED 2
#define STARTED 3
#define RAN 4
bool canceled[CALLS], returned[CALLS];
byte after[CALLS];		/* the function of context.AfterFunc */
byte reapers[PIDFDS], taken[PIDFDS];	/* how many results have Reaped set, how often it has left the set */

/* Each change is one event for whoever watches with EPOLLET. */
inline become(i, state) {
	d_step {
		life[i] = state;
		edge[i] = edge[i] || parking[i] && !destroyed[i];
		event[i] = event[i] || watched[i];
		edge[SET] = edge[SET] || watched[i]
	}
}

/* The end, and that someone else reaps: the parent, or another who waits for a child. */
proctype Process(byte i) {
	if :: has(LIVES, i) -> goto stays :: TRACED -> become(i, HELD) :: !TRACED fi;
	if :: TRACED -> goto stays :: become(i, ZOMBIE) fi;
	if
	:: !has(REAPS, i) || has(LIVES, i) -> skip
	:: has(REAPS, i) && life[i] == REAPED
	:: atomic { has(REAPS, i) && life[i] == ZOMBIE -> become(i, REAPED) }
	fi;
stays:
	skip
}

/*
 * The runtime fetches events at some time. An epoll instance that was emptied since has none. What
 * comes while nobody reads is forgotten, for RawConn.Read resets it at first.
 */
inline fetch(f, still) { d_step { edge[f] -> edge[f] = false; pdReady[f] = pdReady[f] || reading[f] && still } }
proctype Poller() {
end:
	do
	:: fetch(0, true)
	:: fetch(PIDFDS - 1, true)
	:: fetch(SET, (event[0] || event[PIDFDS - 1]))
	od
}

inline closeDescriptor(i) { d_step { assert(pidfd[i]); pidfd[i] = false; watched[i] = false; event[i] = false } }

inline destroy(f) {
	d_step {
		assert(!destroyed[f]);
		destroyed[f] = true; edge[f] = false; pdReady[f] = false; expired[f] = false;
		if :: OWN && f != SET -> closeDescriptor(f) :: else -> assert(epoll[f]); epoll[f] = false fi
	}
}

/* os.File.Close: the last to use the file destroys it, and Close waits for that. Who is parked wakes. */
inline closeFile(f) {
	atomic { assert(!closed[f]); closed[f] = true; if :: reading[f] :: else -> destroy(f) fi }
	destroyed[f]
}

inline setDeadline(f, past) { d_step { if :: closed[f] :: else -> expired[f] = past fi } }

/* Go: parking.interrupt: SetReadDeadline */
inline interrupt(f) { setDeadline(f, true) }

/*
 * A swap that fails is tried again, so the one that does not is the only step.
 * Go: PidFD.acquire: Load CompareAndSwap
 */
inline acquire(i) {
	d_step { ok = uses[i] > 0; if :: ok -> uses[i] = uses[i] + 1 :: else fi }
}

/*
 * The first is of the eventfd of WaitBlocking.
 * Go: PidFD.closeFD: Close Close Close Close
 */
inline closeFD(i) {
	if :: parking[i] -> closeFile(i) :: else fi;
	if :: OWN && parking[i] :: else -> closeDescriptor(i) fi
}

/* Go: PidFD.release: Add closeFD */
inline release(i) {
	atomic { uses[i] = uses[i] - 1; last = uses[i] == CLOSING }
	if :: last -> last = false; closeFD(i) :: else fi
}

/*
 * Here too the swap that does not fail is the only step.
 * Go: PidFD.Close: CompareAndSwap interrupt release
 */
inline closeOwner(i) {
	d_step { ok = uses[i] > 0; if :: ok -> uses[i] = uses[i] + CLOSING :: else fi }
	if
	:: ok ->
		if :: parking[i] -> interrupt(i) :: else fi;
		release(i)
	:: else
	fi
}

proctype Closer() { bool ok, last; if :: skip :: closeOwner(0) fi }

/*
 * The channel is made for the first to ask, under the mutex of the PidFD, and closed at once if it
 * would have been.
 * Go: PidFD.zombie: Load close
 * Go: PidFD.zombieOf: Lock Unlock close
 */
inline sawZombie(i) {
	if
	:: has(EXITED, w) -> done = true
	:: else -> if :: parking[i] -> zombie[i] = true :: else fi
	fi
}

/*
 * The kernel is one before Linux 6.15, where only waitid(2) tells the status: all calls must know it
 * if one has reaped. Of a child that was reaped, a poll tells that much.
 * Go: PidFD.look: Lock waitPidFD lookAtOther lookAtHeld end
 * Go: PidFD.end: waitPidFD keep
 * Go: PidFD.lookAtHeld: Load pollEnd zombie
 * Go: PidFD.lookAtOther: pollEnd zombie
 */
#define POLL_HELD 1
#define POLL_OTHER 2
#define TAKE 3
inline look(i, sure) {
	atomic {
		sure && !mu[i] -> mu[i] = true;
		assert(pidfd[i]);
		if
		:: final[i] || ended[i] && life[i] == REAPED -> done = true; known = true
		:: else -> if
			:: CHILD && life[i] == ZOMBIE -> next = TAKE
			:: CHILD && life[i] < ZOMBIE -> next = (has(EXITED, w) || parking[i] -> POLL_HELD : 0)
			:: !CHILD || life[i] == REAPED -> next = POLL_OTHER
			fi
		fi;
		mu[i] = next != 0
	}
	if
	:: atomic { next ->
		assert(pidfd[i]);
		if
		:: next == TAKE ->
			if :: !has(NO_REAP, w) && life[i] == ZOMBIE -> become(i, REAPED); reaped = true; reapers[i]++ :: else fi;
			ended[i] = true; final[i] = reaped; done = true; known = true
		:: next == POLL_OTHER && life[i] == REAPED -> done = true
		:: next != TAKE && life[i] == RUNS
		:: else -> sawZombie(i)
		fi;
		next = 0;
		mu[i] = false
	}
	:: else
	fi
}

/* Go: WaitSet.remove: epollCtl delete release */
inline remove(i) {
	d_step { assert(pidfd[i] && member[i]); watched[i] = false; event[i] = false; member[i] = false; taken[i]++ }
	release(i)
}

/* Go: epollEvents.next: epollNow */
inline fetchRest() {
	if
	:: rest[0] || rest[PIDFDS - 1]
	:: else -> if
		:: many -> rest[0] = event[0]; rest[PIDFDS - 1] = event[PIDFDS - 1]; event[0] = false; event[PIDFDS - 1] = false
		:: !many && event[0] -> rest[0] = true; event[0] = false
		:: !many && event[PIDFDS - 1] -> rest[PIDFDS - 1] = true; event[PIDFDS - 1] = false
		:: else
		fi
	fi
}

inline leaveSet(parked) {
	if :: many && !parked -> unlock(turn[SET]) :: else fi;
	many = false;
	unlock(setMu)
}

/* Go: WaitSet.take: lock Unlock tryTurn endTurn next look remove */
inline take(parked) {
	atomic {
		lock(setMu);
		if
		:: !setOpen -> refused = true; unlock(setMu)
		:: else -> if :: parked || turn[SET] -> many = parked :: else -> turn[SET] = true; many = true fi
		fi
	}
	do
	:: atomic { !refused ->
			assert(epoll[SET]);
			fetchRest();
			if :: rest[0] -> m = 0 :: rest[PIDFDS - 1] -> m = PIDFDS - 1 :: else -> leaveSet(parked); break fi;
			rest[m] = false;
			assert(life[m] != RUNS)	/* or look must not reap at once */
		}
		if :: member[m] -> look(m, true) :: else fi;
		if :: done -> remove(m); atomic { m = 0; leaveSet(parked); break } :: else fi
	:: refused -> break
	od
}

/*
 * What a parking calls for a Next or for a Wait; TryWait does the same.
 * Go: PidFD.tryWait: acquire release look
 * Go: awaiting.wait: closeFD zombieOf wait
 * Go: awaiting.ready: acquire Add look look
 */
inline attempt(parked) {
	if
	:: f == SET -> take(parked)
	:: atomic { f != SET -> acquire(f); refused = !ok }
		if
		:: look(f, ok); atomic { uses[f] = uses[f] - 1; last = uses[f] == CLOSING }
		:: refused
		fi
	fi
}
#define enough (done || refused || last)

/*
 * Go: PidFD.park: acquire release Lock Unlock Load ownFile newEpollOf newParking Store
 * Go: PidFD.ownFile: NewFile
 * Go: newEpollOf: newEpoll epollAdd
 */
inline park() {
	if
	:: atomic { ok && !mu[f] -> assert(pidfd[f]); if :: parking[f] :: else -> mu[f] = true; assert(!epoll[f]); epoll[f] = !OWN fi }
		if
		:: atomic { !parking[f] -> parking[f] = true; edge[f] = life[f] != RUNS; unlock(mu[f]) }
		:: else
		fi;
		release(f)
	:: refused
	fi
}

/* What a call waits for has come. */
#define over(i, w) (life[i] == REAPED || life[i] == ZOMBIE && (CHILD || has(EXITED, w)) || life[i] == HELD && has(EXITED, w))
#define overMember(i, w) (member[i] && over(i, w))
#define due(w, f) (canceled[w] || (f == SET -> !setOpen || overMember(0, w) || overMember(PIDFDS - 1, w) : uses[f] < 0 || over(f, w)))
#define file(w) (has(WAIT, w) -> 0 : SET)

/*
 * A PidFD.Wait, or, if f is SET, a WaitSet.Next.
 * Go: PidFD.Wait: tryWait Err park wait
 * Go: WaitSet.Next: take Err park
 * Go: WaitSet.park: wait take
 * Go: parking.wait: takeTurn Add AfterFunc interrupt Done Read ready stop Wait SetReadDeadline Err
 * Go: parking.takeTurn: ready Done
 */
proctype Call(byte w, f) {
	bool ok, last, done, known, reaped, refused, failed, many, also = has(EXITED, w) && f != SET;
	byte m, next;

	attempt(false);
	if
	:: atomic { enough || canceled[w] -> goto out }
	:: atomic { !enough && f == SET }
	:: atomic { !enough && f != SET -> acquire(f); refused = !ok }
		park()
	fi;

	do
	:: atomic { refused -> goto out }
	:: atomic { !refused && !turn[f] -> turn[f] = true; after[w] = SCHEDULED; break }
	:: atomic { !refused && also && zombie[f] -> also = false }
		attempt(false);
		if :: enough -> goto out :: else fi
	:: !refused && canceled[w] -> goto out
	od;

	/* RawConn.Read fails at once if the deadline is over, forgets events, and calls before it parks. */
	atomic {
		if :: closed[f] || expired[f] -> failed = true; goto stop :: else fi;
		assert(!reading[f]); reading[f] = true
	}
	do
	:: attempt(true);
		if
		:: enough -> break
		:: atomic { !enough && pdReady[f] -> pdReady[f] = false }
		:: atomic { !enough && (closed[f] || expired[f]) -> failed = true; break }
		fi
	od;
	atomic { reading[f] = false; pdReady[f] = false; if :: closed[f] -> destroy(f) :: else fi }
stop:
	if
	:: atomic { after[w] == SCHEDULED -> after[w] = STOPPED; unlock(turn[f]) }
	:: atomic { after[w] == RAN -> setDeadline(f, false); unlock(turn[f]) }
	fi;
	refused = refused || failed && !canceled[w];
out:
	if :: last -> last = false; refused = !done; closeFD(f) :: else fi;
	atomic {
		assert(done + refused <= 1 && (done || refused || canceled[w]));
		assert(done || !reaped);
		assert(!refused || (f == SET -> !setOpen : uses[f] < 0));
		assert(!done || f == SET || over(f, w) && (known || has(EXITED, w) || !CHILD || !reapers[f]));
		returned[w] = true; canceled[w] = false; after[w] = 0;
		ok = false; done = false; known = false; reaped = false; refused = false; failed = false; also = false
	}
}

/* The context of a call, and the goroutine that it starts. */
proctype Context(byte w, f) {
	if :: skip -> goto goesOn :: canceled[w] = !returned[w] fi;
end:
	atomic { after[w] == SCHEDULED -> after[w] = STARTED }
	atomic { interrupt(f); after[w] = RAN }
goesOn:
	skip
}

/*
 * Go: WaitSet.Add: acquire add release
 * Go: WaitSet.add: lock Unlock epollAdd
 */
inline add(i) {
	acquire(i);
	if
	:: atomic { ok -> lock(setMu); assert(pidfd[i]) }
		if
		:: atomic { setOpen ->
				assert(epoll[SET]);
				member[i] = true; watched[i] = true; event[i] = life[i] != RUNS; edge[SET] = edge[SET] || event[i];
				unlock(setMu)
			}
		:: atomic { !setOpen -> unlock(setMu) }
			release(i)
		fi
	:: !ok
	fi
}

/* Go: WaitSet.Remove: lock Unlock forget remove */
proctype Member(byte i) {
	bool ok, last;
	if :: has(LATE, i) -> add(i) :: else fi;
	if
	:: atomic { has(REMOVES, i) -> lock(setMu) }
		if :: setOpen && member[i] -> rest[i] = false; remove(i) :: else fi;
		unlock(setMu)
	:: true
	fi
}

/* Go: WaitSet.Close: lock Unlock Close release */
inline closeSet() {
	lock(setMu);
	if
	:: setOpen ->
		setOpen = false;
		unlock(setMu);
		closeFile(SET);
		do
		:: m < PIDFDS -> if :: member[m] -> member[m] = false; release(m) :: else fi; m++
		:: else -> m = 0; break
		od
	:: else -> unlock(setMu)
	fi
}

proctype SetCloser() { bool ok, last; byte m; if :: skip :: closeSet() fi }

init {
	bool ok, last;
	byte m, w;
	atomic {
		run Poller();
		if :: MEMBERS -> setOpen = true; epoll[SET] = true :: else fi;
		do
		:: m < PIDFDS ->
			pidfd[m] = true; uses[m] = 1; run Process(m);
			if :: has(MEMBERS, m) && !has(LATE, m) -> add(m) :: else fi;
			if :: has(LATE | REMOVES, m) -> run Member(m) :: else fi;
			m++
		:: else -> m = 0; break
		od;
		if :: CLOSERS > 0 -> run Closer() :: else fi;
		if :: CLOSERS > 1 -> run Closer() :: else fi;
		if :: SET_CLOSER -> run SetCloser() :: else fi;
		do
		:: w < CALLS ->
			run Call(w, file(w));
			if :: has(CANCEL, w) -> run Context(w, file(w)) :: else fi;
			w++
		:: else -> w = 0; break
		od
	}
	/* Nothing can move any more: a call that is due has returned. */
	timeout -> d_step {
		do
		:: w < CALLS -> assert(returned[w] || !due(w, file(w))); m = m + returned[w]; w++
		:: else -> w = 0; break
		od;
		ok = m == CALLS; m = 0
	}
	/* Close ends the others. A PidFD that nobody uses can also be found by the garbage collector. */
	closeSet();
	do
	:: m < PIDFDS ->
		if
		:: closeOwner(m)
		:: ok && uses[m] > 0 -> assert(uses[m] == 1); uses[m] = CLOSING; closeFD(m)
		fi;
		m++
	:: else -> m = 0; break
	od;
	timeout -> d_step {
		do
		:: w < CALLS -> assert(returned[w]); w++
		:: else -> w = 0; break
		od;
		do
		:: m < PIDFDS -> assert(uses[m] == CLOSING && !pidfd[m] && !epoll[m] && reapers[m] <= 1 && taken[m] <= 1); m++
		:: else -> break
		od;
		assert(!epoll[SET])
	}
}
