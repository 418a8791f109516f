//go:build linux

package main

import (
	"fmt"
	"io"
	"io/fs"
	"path"
)

// A cpioWriter writes an archive of the kind that the kernel unpacks into its first root
// file system: cpio "newc", see Documentation/driver-api/early-userspace/buffer-format.rst.
type cpioWriter struct {
	w     io.Writer
	inode int
	dirs  map[string]bool
	err   error
}

// add writes a file with the directories above it. The content of a symbolic link is its target.
func (c *cpioWriter) add(name string, mode fs.FileMode, content []byte) {
	if dir := path.Dir(name); dir != "." && !c.dirs[dir] {
		c.add(dir, fs.ModeDir|0o755, nil)
		if c.dirs == nil {
			c.dirs = make(map[string]bool)
		}
		c.dirs[dir] = true
	}
	kind := 0o100000
	switch mode.Type() {
	case fs.ModeDir:
		kind = 0o040000
	case fs.ModeSymlink:
		kind = 0o120000
	}
	c.entry(name, kind|int(mode.Perm()), content)
}

// addTree adds the regular files of a tree.
func (c *cpioWriter) addTree(name string, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := fs.ReadFile(tree, file)
		c.add(path.Join(name, file), 0o644, content)
		return err
	})
}

// close writes the end of the archive.
func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode int, content []byte) {
	c.inode++
	// magic, inode, mode, uid, gid, links, time, size, two devices, length of the name, checksum
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	for _, b := range [][]byte{[]byte(header), content} {
		for _, b := range [][]byte{b, make([]byte, -len(b)&3)} {
			if c.err == nil {
				_, c.err = c.w.Write(b)
			}
		}
	}
}
