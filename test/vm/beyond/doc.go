// Package beyond has tests with process and cgroup IDs beyond 32 bits.
//
// The kernel counts them up from 1, so that no machine gets there within a test. Command
// vm boots a kernel, and on request of these tests it finds a counter in the
// memory of the virtual machine and changes it:
//
//	go run ./vm -raise
package beyond
