//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A raiser finds counters in the memory of a guest and changes them, as the guest asks. That
// memory is a file, which qemu maps, too. The guest asks on its console, with lines
// that begin with @, and is answered there:
//
//	@sample NAME A B   The counter NAME is A+B now. The answer is how many places there are of which
//	                   this has been true each time.
//	@halves NAME A B   The same, for a counter that is two words of 32 bits, the lower half first
//	                   in any byte order.
//	@set NAME HIGH LOW Makes it HIGH<<32 + LOW. It must not be one of halves.
//	@rewind NAME LOW   The counter is one of kernfs. Makes the kernel look for a free number from
//	                   LOW on next. If it has to count up its upper half for that, it does.
type raiser struct {
	dir     string    // has the memory and qemu's monitor
	answers io.Writer // the keys of the console
	order   binary.ByteOrder

	ram     []byte
	conn    net.Conn
	monitor *json.Decoder
	places  map[string][]int // where each counter may be
}

// raiseOptions returns what qemu takes for it. dir is for the files.
func raiseOptions(dir string, memory int) []string {
	return []string{
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s,share=on", memory, filepath.Join(dir, "ram")),
		"-machine", "memory-backend=ram", "-qmp", "unix:" + filepath.Join(dir, "monitor") + ",server=on,wait=off",
	}
}

// open is called when qemu has its files.
func (r *raiser) open() error {
	f, err := os.OpenFile(filepath.Join(r.dir, "ram"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if r.ram, err = syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return err
	}
	if r.conn, err = net.Dial("unix", filepath.Join(r.dir, "monitor")); err != nil {
		return err
	}
	r.monitor = json.NewDecoder(r.conn)
	r.places = make(map[string][]int)
	return r.command("qmp_capabilities")
}

func (r *raiser) close() {
	if r.conn != nil {
		r.conn.Close()
	}
	if r.ram != nil {
		syscall.Munmap(r.ram)
	}
}

// command has qemu do something, and returns when it is done.
func (r *raiser) command(name string) error {
	if _, err := fmt.Fprintf(r.conn, "{\"execute\": %q}\n", name); err != nil {
		return err
	}
	for {
		var answer struct {
			Return *struct{}
			Error  *struct{ Desc string }
		}
		switch err := r.monitor.Decode(&answer); {
		case err != nil:
			return fmt.Errorf("qemu: %w", err)
		case answer.Error != nil:
			return errors.New("qemu: " + answer.Error.Desc)
		case answer.Return != nil:
			return nil
		} // else it is a greeting or an event
	}
}

// line answers a line of the guest's if it is a question.
func (r *raiser) line(line string) error {
	question, ok := strings.CutPrefix(strings.TrimSpace(line), "@")
	if !ok {
		return nil
	}
	if r.conn == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if err := r.command("stop"); err != nil {
		return err
	}
	answer, err := r.answer(question)
	if err != nil {
		answer = err.Error()
	}
	if err := r.command("cont"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.answers, "= %s\n", answer)
	return err
}

func (r *raiser) answer(question string) (string, error) {
	words := strings.Fields(question)
	var n [2]uint64
	if len(words) < 3 || len(words) > 4 {
		return "", fmt.Errorf("what is %q?", question)
	}
	for i, word := range words[2:] {
		var err error
		if n[i], err = strconv.ParseUint(word, 10, 64); err != nil {
			return "", err
		}
	}
	name := words[1]
	switch value := n[0] + n[1]; words[0] {
	case "halves":
		if r.order == binary.BigEndian {
			value = bits.RotateLeft64(value, 32)
		}
		fallthrough
	case "sample":
		r.sample(name, value)
		return strconv.Itoa(len(r.places[name])), nil
	}
	if len(r.places[name]) != 1 {
		return "", fmt.Errorf("there are %d places of %s", len(r.places[name]), name)
	}
	place := r.places[name][0]
	switch words[0] {
	case "set":
		r.order.PutUint64(r.ram[place:], n[0]<<32+n[1])
		return "ok", nil
	case "rewind":
		return "ok", r.rewind(place, uint32(n[0]))
	}
	return "", fmt.Errorf("what is %q?", question)
}

// sample keeps the places that have the value.
func (r *raiser) sample(name string, value uint64) {
	if r.order == binary.BigEndian {
		value = bits.ReverseBytes64(value)
	}
	differs := func(offset int) bool { return binary.LittleEndian.Uint64(r.ram[offset:]) != value }
	if places, ok := r.places[name]; ok {
		r.places[name] = slices.DeleteFunc(places, differs)
		return
	}
	var places []int
	for offset := 0; offset <= len(r.ram)-8; offset += 4 { // where 64-bit words of a 386 are, too
		if !differs(offset) {
			places = append(places, offset)
		}
	}
	r.places[name] = places
}

// rewind changes the idr_next of a struct kernfs_root, given the place of its last_id_lowbits,
// which is followed by id_highbits. The one is close to the other, and larger by one.
func (r *raiser) rewind(last int, low uint32) error {
	next := r.order.Uint32(r.ram[last:]) + 1
	before := []int{4, 8, 12, 16, 20, 24, 28, 32}
	i := slices.IndexFunc(before, func(n int) bool { return last >= n && r.order.Uint32(r.ram[last-n:]) == next })
	if i < 0 {
		return errors.New("there is no idr_next")
	}
	r.order.PutUint32(r.ram[last-before[i]:], low)
	return nil
}
