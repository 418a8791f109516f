//go:build go1.26

package collector

import "runtime/metrics"

// counts returns how many finalizers and cleanups were queued, and how many of them are done.
func counts() (queued, done uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/finalizers/queued:finalizers"},
		{Name: "/gc/cleanups/queued:cleanups"},
		{Name: "/gc/finalizers/executed:finalizers"},
		{Name: "/gc/cleanups/executed:cleanups"},
	}
	metrics.Read(samples)
	n := func(i int) uint64 { return samples[i].Value.Uint64() }
	return n(0) + n(1), n(2) + n(3)
}
