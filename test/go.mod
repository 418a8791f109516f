module github.com/sysfd/sysfd/test

go 1.26.0

replace github.com/sysfd/sysfd => ../

require (
	github.com/sysfd/sysfd v0.0.0
	golang.org/x/sys v0.49.0
)
