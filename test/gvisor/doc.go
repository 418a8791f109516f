// Package gvisor runs the tests of package sysfd in gVisor, a sandbox that many services in Go
// run in. It is a kernel of its own: it has a part of what Linux has, some of that in its own way,
// and says that it is another version than it is like.
//
// What a gVisor lacks is in the table of environments in sysfd_test.go, which TestFeatures
// compares with what the probes find. Here is which tests come out otherwise there, and why. Both
// tables must be right both ways: what works and is said not to, fails the test too.
//
//	go test ./gvisor -v             # Debian's runsc, of 2022, which has no pidfds
//	go test ./gvisor -v -current    # one of 2026, too, which it builds in two minutes
//
// It takes root, so that the sandbox needs no user namespace, but no KVM, network or docker.
package gvisor
