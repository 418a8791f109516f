//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// SendSignal sends a signal to the process. Signal 0 sends nothing, and checks that one could be
// sent. It is pidfd_send_signal(2), Linux 5.1. A signal to a zombie is lost without an error. For a
// pidfd opened with [PIDFD_THREAD] the signal goes to that thread alone.
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if the process (or that thread) was reaped;
//   - EPERM, or EACCES from some security modules, if the caller may not; the process then exists;
//   - EINVAL if there is no such signal, or if the process has no PID in the caller's pid
//     namespace;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the call.
func (p *PidFD) SendSignal(sig syscall.Signal) error { return p.sendSignal(sig, nil, 0) }

// SendSignalTo sends a signal to what flag says:
//   - [PIDFD_SIGNAL_THREAD]: the thread of a pidfd opened with [PIDFD_THREAD], or the main thread
//     of the process of another pidfd;
//   - [PIDFD_SIGNAL_THREAD_GROUP]: the process, even if the pidfd is one of a thread;
//   - [PIDFD_SIGNAL_PROCESS_GROUP]: the process group whose ID is the PID of the process. The
//     process may have been reaped.
//
// These are flags of pidfd_send_signal(2), Linux 6.9. With 0 SendSignalTo is [PidFD.SendSignal].
//
// Errors: those of SendSignal, and
//   - ESRCH if there is no such process group. It matches [os.ErrProcessDone] only if the process
//     was reaped too;
//   - ESRCH for the process of a thread that has ended. It does not match os.ErrProcessDone,
//     because the process can still run;
//   - EINVAL for another flag or more than one, and from kernels that do not know the flag. From
//     these it matches [errors.ErrUnsupported].
func (p *PidFD) SendSignalTo(sig syscall.Signal, flag SignalFlag) error {
	return p.sendSignal(sig, nil, flag)
}

// QueueSignal sends a signal with a value, as sigqueue(3) does. The receiver finds SI_QUEUE in
// si_code, the value in si_value.sival_int, and the PID and the real user ID of the caller (PID 0
// in an inner pid namespace). Real-time signals (32 and up) queue up, each with its value; for
// other signals a second one is lost while the first is pending. It is pidfd_send_signal(2) with a
// siginfo_t, Linux 5.1.
//
// Errors: those of [PidFD.SendSignal]. EAGAIN if too many signals are queued (RLIMIT_SIGPENDING).
func (p *PidFD) QueueSignal(sig syscall.Signal, value int32) error {
	return p.sendSignal(sig, &sigqueueInfo{
		Signo: int32(sig),
		Code:  _SI_QUEUE,
		PID:   int32(syscall.Getpid()),
		UID:   uint32(syscall.Getuid()),
		Value: value,
	}, 0)
}

func (p *PidFD) sendSignal(sig syscall.Signal, info *sigqueueInfo, flag int) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	errno := pidfdSendSignal(p.fd, sig, info, flag)
	if errno == 0 {
		return nil
	}
	err := failed("pidfd_send_signal", strconv.Itoa(int(sig))+" to "+p.String(), errno)
	switch errno {
	case syscall.ESRCH:
		if !elsewhere(p.fd, flag) && reaped(p.fd) == syscall.ESRCH {
			err.means = os.ErrProcessDone
		}
	case syscall.EINVAL:
		switch flag {
		case PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP:
			// A kernel that knows the flag goes on to the descriptor, and answers
			// EBADF.
			if pidfdSendSignal(-1, 0, nil, flag) == syscall.EINVAL {
				err.means = errors.ErrUnsupported
			}
		}
	}
	return err
}

// elsewhere reports whether a signal goes to the process of a thread, which may live on without
// that thread.
func elsewhere(fd, flag int) bool {
	if flag != PIDFD_SIGNAL_THREAD_GROUP {
		return false
	}
	flags, _ := fcntl(fd, syscall.F_GETFL, 0)
	return flags&PIDFD_THREAD != 0
}
