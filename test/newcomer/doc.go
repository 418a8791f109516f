// Package newcomer runs the short tests of the library and of its command where people who try
// them for the first time are: as an ordinary user, in a container of Docker, in a chroot.
// There a test must pass, or be skipped for a reason that this package knows.
//
// It needs root, and makes each of these places in namespaces of its own.
package newcomer
