// Package activation makes listeners and packet connections of the sockets that the
// service manager passes to a process ($LISTEN_FDS, see [sysfd.ListenFDs]).
//
//	listeners, err := activation.Listeners()                             // all
//	listeners, err := activation.Listeners("http")                       // those of one name
//	l, err := activation.ListenOr(ctx, "http", "tcp", "127.0.0.1:8080")  // or one of one's own
//	conns, err := activation.PacketConns("dns")
//	files, err := activation.Unclaimed()                                 // what no part of the program knows
//
// With TLS, a listener becomes tls.NewListener(l, config).
//
// # Who owns what
//
// A socket is taken once, by a function of this package or by [sysfd.TakeListenFDs], so that
// independent parts of a program can each take theirs. Its listener is then the only owner in this
// process: the file that [sysfd.ListenFDs] returns for it is closed. A file that is closed
// otherwise is never returned here. If the service manager has the socket too, as systemd has, then clients can
// still connect when the listener is closed, and wait for the service to be started again.
//
// The path of a passed Unix socket belongs to whoever has bound it, and stays when the listener is closed. Package
// net makes a socket non-blocking; that mode belongs to the socket, and so everyone who has it sees that.
//
// A program that executes itself anew passes its listeners on as files with a name:
//
//	f, err := sysfd.DupFile(l.(*net.TCPListener), "http")
//	err = sysfd.ExecListenFDs(program, os.Args, os.Environ(), []*os.File{f})
//
// Of a Unix socket that [ListenOr] has bound, SetUnlinkOnClose(false) keeps the path for the successor.
//
// # Errors
//
// An error of the environment, such as a $LISTEN_FDS that is not a number, is returned by each
// function, each time: a program that would then listen on its own would hide it. If a call
// fails, nothing is lost: all sockets are open and can be taken as before.
//
// # Coming from go-systemd
//
// Most callers of github.com/coreos/go-systemd/v22/activation change the import alone. The differences are:
//
//	go-systemd                          here
//	Listeners()                         Listeners(): without nil for what does not listen, which Unclaimed returns
//	listeners[i] is descriptor 3+i      only if all listen; From(files[i]).Listeners(), with files of [sysfd.ListenFDs]
//	Listeners() of a second caller      nothing, as there; with names each caller has its own
//	Listeners() of a connection         not a listener: Accept would fail, and it stays for Unclaimed
//	ListenersWithNames()                ListenersWithNames()
//	no $LISTEN_FDNAMES                  each name is "unknown", not "LISTEN_FD_3"
//	fewer names than descriptors        an error, as with libsystemd; an empty name is ""
//	PacketConns() after Listeners()     has the rest, and the other way round; there it has nothing
//	TLSListeners(config)                Listeners() and tls.NewListener
//	TLSListenersWithNames(config)       ListenersWithNames() and tls.NewListener
//	Files(true), FilesWithNames()       [sysfd.ListenFDs], each file has its name; Unclaimed()
//	Files(false)                        [sysfd.InspectListenEnv] tells what there is
//	errors                              a wrong environment is an error, there it is an empty result
//	$LISTEN_PIDFDID                     is compared, and unset
//
// # Other systems
//
// On systems other than Linux nothing is passed, and [ListenOr] listens. What is
// given to [From] there fails with an error that matches [errors.ErrUnsupported]. Plan 9 has nothing of this package.
package activation
