// Package systemd tests sysfd against systemd and libsystemd themselves, of Debian's
// sid and of the distribution that the tests run on. It takes root, debootstrap and
// gcc with the libraries for 386; a test that cannot run says what is missing. Nothing of the
// host is changed: what is started runs in namespaces of its own, on a root directory that is
// kept in the user's cache directory.
package systemd
