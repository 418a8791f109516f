module github.com/sysfd/sysfd/examples

go 1.26.0

require (
	github.com/sysfd/sysfd v0.0.0
	github.com/varlink/go v0.4.1-0.20261015173642-c935be0c53f7
	golang.org/x/sync v0.25.0
	golang.org/x/sys v0.49.0
)

replace github.com/sysfd/sysfd => ../
