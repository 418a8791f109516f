// Package model has the protocol of a PidFD's owner, of PidFD.Wait and of WaitSet as a model,
// wait.pml, which spin explores: all orders in which goroutines, the runtime's poller and the
// kernel can take their steps. In none of them
//
//   - a call still waits when what it waits for has come, be it the end of the process, Close or
//     its context, nor does it take one for the other;
//   - anything is stuck, or goes round for ever;
//   - a descriptor is used after it was closed, closed twice, or left open;
//   - WaitSet.Next returns a member twice, or two results have Reaped set, or a child is
//     reaped and its status lost.
//
// The tests also break the model, in one place at a time, to see that spin finds it, and compare
// the comments of the model with the functions that it stands for.
//
// Only some configurations are searched for what goes round for ever. Left out are errors of the
// system calls, a function that panics while it is parked, the tokens of WaitSet (its mutex is held
// from when an event is fetched until its member has left), a member that is added again, forgotten
// sets, and the weak order of memory, for which there is the race detector.
//
// It takes spin and gcc:
//
//	go test ./model       # half a minute
//	go test ./model -v    # with the number of states
package model
