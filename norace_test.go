//go:build linux && !race

package sysfd

const raceEnabled = false
