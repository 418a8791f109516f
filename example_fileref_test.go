//go:build linux

package sysfd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"

	"github.com/sysfd/sysfd"
)

// A bookmark is what a program stores about a file.
type bookmark struct {
	File sysfd.FileRef `json:"file"`
	Page int           `json:"page"`
}

// A reader remembers the page at which a book was closed. It finds the book again after a rename, a
// move within the file system and a reboot. A new file under the old path is not taken for the
// book. Opening a file by its handle needs CAP_DAC_READ_SEARCH, which root has.
func Example_rememberFile() {
	const book, store = "/var/lib/reader/book.txt", "/var/lib/reader/bookmark.json"
	if err := saveBookmark(store, book, 42); err != nil {
		log.Fatal(err)
	}

	if err := os.Rename(book, "/var/lib/reader/read/book.txt"); err != nil {
		log.Fatal(err)
	}

	// After a reboot, perhaps.
	f, page, err := openBookmark(store)
	switch {
	case errors.Is(err, os.ErrNotExist):
		fmt.Println("the book was deleted")
		return
	case errors.Is(err, syscall.ESTALE): // on a disk this is no proof; see FileRef.OpenFrom
		fmt.Println("the book was deleted, or is out of reach")
		return
	case err != nil:
		log.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	fmt.Println(len(text), "bytes, closed at page", page, err)
}

func saveBookmark(store, path string, page int) error {
	ref, err := sysfd.FileRefAt(sysfd.AT_FDCWD, path, 0)
	if err != nil { // errors.ErrUnsupported: a file system without handles, or without an identity
		return err
	}
	text, err := json.Marshal(bookmark{ref, page})
	if err != nil {
		return err
	}
	return os.WriteFile(store, text, 0o600) // 0o600: whoever can change it chooses the file
}

func openBookmark(store string) (*os.File, int, error) {
	text, err := os.ReadFile(store)
	if err != nil {
		return nil, 0, err
	}
	var b bookmark
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, 0, err
	}
	f, err := b.File.Open(syscall.O_RDONLY, 0)
	return f, b.Page, err
}
