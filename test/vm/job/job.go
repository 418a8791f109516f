// Package job is what the host tells the guest to do.
package job

// File is where the guest finds its Job, in JSON.
const File = "/job.json"

// A Job is one run of a program.
type Job struct {
	Args        []string
	Env         []string
	Dir         string
	UID         int    // of the program; also its group
	Interactive bool   // stdin is the console, else /dev/null
	Mark        string // begins the line before the program's output, and the verdict behind it
}
