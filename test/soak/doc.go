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
//
// # The second best
//
// A PID and a start time, which sysfd takes on kernels without pidfd IDs, is no proof. TestSecondBest
// counts how often it is mistaken. The worker starts one process after the other, takes the second best
// of each, and opens it when the process has ended and the next one has its PID. That must
// fail, unless both have started within the same clock tick, 10 ms, for which all PIDs that
// are free have to come round in that time:
//
//	kernel  pid_max  free PIDs  processes a second  names opened  opened another process
//	6.18        301          1               1,431        19,712                  18,442
//	6.18        304          4               1,728        19,709                  15,399
//	6.18        310         10               1,662        19,703                   8,868
//	6.18        320         20               1,762        19,693                   2,995
//	6.18        340         40               1,198        19,673                       0
//	6.18     32,768     32,468                 341        67,245                       0
//	6.1         301          1                  48        14,791                   1,076
//	6.1         304          4                  43         2,788                       0
//	6.1      32,768     32,468                  50         7,324                       0
//
// Linux 6.18, on two processors, was made to look as if it had no IDs; Linux 6.1, which has none, ran in
// an emulated machine with one slow processor. A name is counted as opened if its PID came again.
//
//	go test ./soak -v -run TestSecondBest -rounds 100000     # the default pid_max, too
//	go test ./vm -v -boot -run TestSecondBest -names 15000   # Linux 6.1
package soak
