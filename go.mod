module github.com/sysfd/sysfd

go 1.24

require golang.org/x/sys v0.22.0
