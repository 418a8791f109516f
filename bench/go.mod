module github.com/sysfd/sysfd/bench

go 1.24

require (
	github.com/sysfd/sysfd v0.0.0
	golang.org/x/sys v0.22.0
)

replace github.com/sysfd/sysfd => ../
