module github.com/sysfd/sysfd/test

go 1.26.0

replace github.com/sysfd/sysfd => ../
