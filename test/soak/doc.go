// Package soak makes PIDs wrap around, many times, and sees whether sysfd ever takes one
// process for another.
//
// Its worker is PID 1 of a pid namespace with a kernel.pid_max of 600 or a little more. There it has 64
// goroutines, each with some children at a time, so that a PID is soon given to another child.
// Each of the rounds, from one of the goroutines:
//
//   - starts a child, takes its pidfd, its ID and its ProcessRef, and opens it again by
//     the ID and by the ProcessRef, in memory, as text or as JSON;
//   - has a go at the children that had the same PID before, while the new one has it: neither their
//     pidfds, which are still open, nor their names may reach anything;
//   - ends the child: it is told a number to exit with, or it is sent a signal by one of its pidfds;
//   - waits for it, in one of several ways. It must have ended so and not otherwise: a signal
//     that has hit another child is found there;
//   - makes sure that it is gone.
//
// Threads of the worker come and go, too, and take PIDs that were those of children.
//
// In the end all IDs must be different, and the worker must have as many descriptors and
// goroutines and as much memory as after the first tenth of the rounds. A file that was forgotten, and
// closed by the garbage collector, is found, too.
//
// All this is done for amd64 and 386, or for the one architecture that the tests run on; and
// once more with open_by_handle_at(2) forbidden, where sysfd opens a process by its PID and compares
// the ID. It takes root, and Linux 6.14, which is the first to have file handles for pidfds,
// and a pid_max for each pid namespace. That of the host stays as it is.
//
//	go test ./soak                                     # 2,500 rounds of each
//	go test ./soak -v -rounds 100000 -timeout 30m      # more, with a summary of each
//
// The second takes a quarter of an hour on two processors that have other things to do. A worker that
// does not get on for a minute is made to show what its goroutines are at. The tests also have
// it do one thing wrong at a time, to see that it is found.
package soak
