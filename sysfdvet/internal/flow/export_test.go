package flow

// LookAtAll has all packages looked at.
func LookAtAll() { lookAtAll = true }
