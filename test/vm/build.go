//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// A builder makes what a vm takes, each thing once.
type builder struct {
	root  string // of the repository
	dir   string // for what it builds
	cache cache

	mu    sync.Mutex
	built map[string]string
}

func newBuilder(ctx context.Context, update bool) (*builder, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sysfd/sysfd").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: the working directory must be in the repository: %w", err)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "sysfd", "vm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := &builder{root: strings.TrimSpace(string(out)), cache: cache{dir: dir, update: update}, built: make(map[string]string)}
	b.dir, err = os.MkdirTemp("", "sysfd-vm-")
	return b, err
}

func (b *builder) close() error { return os.RemoveAll(b.dir) }

// vm returns one that lacks a program.
func (b *builder) vm(ctx context.Context, k kernel) (v vm, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.kernel, v.machine = k, machines[k.machine]
	if _, err := exec.LookPath(v.machine.qemu[0]); err != nil {
		return v, fmt.Errorf("%w (Debian has it in %s)", err, v.machine.in)
	}
	if v.image, err = b.cache.image(ctx, k); err != nil {
		return v, err
	}
	v.init, err = b.build(ctx, v.machine.goarch, "test/vm/guest", "build")
	return v, err
}

// testBinary returns the test binary of a package, whose folder is relative to the repository.
func (b *builder) testBinary(ctx context.Context, goarch, folder string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.build(ctx, goarch, folder, "test", "-c")
}

// build runs the go command for one package.
func (b *builder) build(ctx context.Context, goarch, folder string, words ...string) (string, error) {
	key := goarch + "-" + strings.ReplaceAll(folder, "/", "-")
	if name, ok := b.built[key]; ok {
		return name, nil
	}
	name := filepath.Join(b.dir, key)
	cmd := exec.CommandContext(ctx, "go", append(words, "-o", name, ".")...)
	cmd.Dir = filepath.Join(b.root, folder)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v in %s: %w\n%s", cmd, folder, err, out)
	}
	b.built[key] = name
	return name, nil
}
