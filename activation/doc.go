// Package activation makes listeners and packet connections of the sockets that the service manager
// passes to a process ($LISTEN_FDS, see [sysfd.ListenFDs]).
//
//	listeners, err := activation.Listeners()                             // all
//	listeners, err := activation.Listeners("http")                       // those with one name
//	l, err := activation.ListenOr(ctx, "http", "tcp", "127.0.0.1:8080")  // passed, or else its own
//	conns, err := activation.PacketConns("dns")
//	files, err := activation.Unclaimed()                                 // what no part of the program has taken
//
// For TLS, use tls.NewListener(l, config).
//
// # Ownership
//
// Each socket is taken once, by a function of this package or by [sysfd.TakeListenFDs], so that
// independent parts of a program can each take their own. The listener is then its only owner in
// this process: the file that [sysfd.ListenFDs] returns for it is closed. A file that other code
// has closed is never returned here. If the service manager keeps the socket open, as systemd does,
// clients can still connect after the listener is closed, and wait until the service starts again.
//
// The path of a passed Unix socket belongs to the process that bound it, and remains when the
// listener is closed. Package net makes a socket non-blocking. The mode belongs to the socket, so
// all processes that have it are affected.
//
// A program that executes itself again passes its listeners on as files with a name:
//
//	f, err := sysfd.DupFile(l.(*net.TCPListener), "http")
//	err = sysfd.ExecListenFDs(program, os.Args, os.Environ(), []*os.File{f})
//
// For a Unix socket that [ListenOr] has bound, call SetUnlinkOnClose(false) first, to keep the path
// for the successor.
//
// # Errors
//
// Each function returns an error if the environment is wrong, for example if $LISTEN_FDS is not a
// number, and does so each time. A program that then listened on its own would hide the mistake. If
// a call fails, nothing is lost: all sockets are open and can be taken as before.
//
// # Coming from go-systemd
//
// Most callers of github.com/coreos/go-systemd/v22/activation only change the import. The
// differences are:
//
//	go-systemd                          here
//	Listeners()                         Listeners(), without nil for what does not listen: Unclaimed returns that
//	listeners[i] is descriptor 3+i      only if all listen; else From(files[i]).Listeners()
//	Listeners() of a second caller      nothing, as there; with names each caller has its own
//	Listeners() of a connection         not a listener, because Accept would fail; it stays for Unclaimed
//	ListenersWithNames()                ListenersWithNames()
//	no $LISTEN_FDNAMES                  each name is "unknown", not "LISTEN_FD_3"
//	fewer names than descriptors        an error, as with libsystemd; an empty name is ""
//	PacketConns() after Listeners()     returns the rest, and the other way round; there it returns nothing
//	TLSListeners(config)                Listeners() and tls.NewListener
//	TLSListenersWithNames(config)       ListenersWithNames() and tls.NewListener
//	Files(true), FilesWithNames()       sysfd.ListenFDs, where each file has its name; Unclaimed()
//	Files(false)                        sysfd.InspectListenEnv shows what was passed
//	errors                              a wrong environment is an error; there the result is empty
//	$LISTEN_PIDFDID                     is compared and unset
//
// # Other systems
//
// On systems other than Linux nothing is passed, and [ListenOr] listens. Files given to [From]
// there fail with an error that matches [errors.ErrUnsupported]. Plan 9 has nothing of this
// package.
package activation
