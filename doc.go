package sysfd
