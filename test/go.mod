module github.com/sysfd/sysfd/test

go 1.26.0

require github.com/sysfd/sysfd v0.0.0

replace github.com/sysfd/sysfd => ../
