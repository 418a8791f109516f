//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A ProcessRef is a name of a process that can be stored and sent: the process
// that [ProcessRef.Open] opens is that one, or there is an error.
//
// The PID is for the reader, and for kernels that cannot open a process by its ID.
// It is that of the pid namespace in which the ProcessRef was made. From another one the
// process may be out of sight, which cannot be told from its end.
//
// IDs start anew with each boot, from small numbers. A ProcessRef with the zero
// BootID is taken for one of this boot. As long as it is not kept until the next,
// nothing is lost; after that it can be the name of another process, also of one with
// the same PID.
//
// ProcessRefs are values: they can be compared with == and be the keys of a map.
// The zero ProcessRef names nothing.
type ProcessRef struct {
	PID    int
	ID     PidFDID
	BootID BootID
}

// SelfRef returns the name of this process. Where the boot ID cannot be
// read (see [ThisBootID]) it is without.
//
// Errors: those of [PidFDGetID].
func SelfRef() (ProcessRef, error) {
	id, err := selfID()
	if err != nil {
		return ProcessRef{}, err
	}
	return newProcessRef(syscall.Getpid(), id)
}

func newProcessRef(pid int, id PidFDID) (ProcessRef, error) {
	boot, err := ThisBootID()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		return ProcessRef{}, err
	}
	return ProcessRef{pid, id, boot}, nil
}

// Ref returns the name of the process. Where the boot ID cannot be
// read (see [ThisBootID]) it is without.
//
// Errors: those of [PidFD.ID] and [PidFD.PID]. So there is no name for a process that
// was reaped or that has no PID in the pid namespace of the caller, nor could it be
// opened from there.
func (p *PidFD) Ref() (ProcessRef, error) {
	id, err := p.ID()
	if err != nil {
		return ProcessRef{}, err
	}
	pid, err := p.PID()
	if err != nil {
		return ProcessRef{}, err
	}
	return newProcessRef(pid, id)
}

// Open returns a pidfd of the process, never one of another. Since Linux 6.14 it
// opens the process by its ID and does not look at the PID, so that it finds a
// process whose name was made in another pid namespace. Where that cannot be, because the
// kernel is older or a seccomp filter forbids open_by_handle_at(2), it opens the
// process by its PID, which must then be that of the caller's pid namespace, and
// compares the ID.
//
// Errors: one that matches [os.ErrProcessDone] if the process was reaped, if another
// process has its PID now, if the BootID is not that of this machine (or container, see
// [ThisBootID]), or if the process is in a pid namespace that the caller does not see. EINVAL if the ID is zero. One that
// matches [errors.ErrUnsupported] where the kernel has no IDs to compare (see
// [PidFDGetID]), or where the boot ID is to be compared and cannot be known.
func (r ProcessRef) Open() (*PidFD, error) {
	if r.ID == 0 {
		return nil, refused(syscall.EINVAL, "process "+strconv.Itoa(r.PID)+" cannot be opened: its pidfd ID is not known")
	}
	if r.BootID != (BootID{}) {
		boot, err := ThisBootID()
		if err != nil {
			return nil, err
		}
		if boot != r.BootID {
			return nil, r.gone("is of boot " + r.BootID.String() + ", this is boot " + boot.String())
		}
	}
	p, err := OpenPidFDByID(r.ID)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return nil, r.gone("was reaped, or is in a pid namespace out of sight")
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
		return r.openByPID()
	}
	return p, err
}

// openByPID is for kernels before 6.14 and for seccomp filters.
func (r ProcessRef) openByPID() (*PidFD, error) {
	p, err := OpenPidFD(r.PID, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
		// The PID is that of a thread. As by the ID, this may be the name of one.
		p, err = OpenPidFD(r.PID, PIDFD_THREAD)
	}
	if err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			err = r.gone("was reaped: no process has its PID")
		}
		return nil, err
	}
	id, err := p.ID()
	if err == nil && id != r.ID {
		err = r.gone("is gone: its PID is that of the process with pidfd ID " + id.String())
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (r ProcessRef) gone(why string) error {
	return refused(syscall.ESRCH, "process "+r.String()+" "+why).as(os.ErrProcessDone)
}

// String returns PID and ID as util-linux writes them, such as "4711:25". That is
// without the BootID, for the eye and for tools; see [ProcessRef.AppendText].
func (r ProcessRef) String() string { return strconv.Itoa(r.PID) + ":" + r.ID.String() }

// ParseProcessRef reads what [ProcessRef.String] and [ProcessRef.AppendText]
// write, and nothing else. PID and ID must not be zero. What is not one is an error
// that matches EINVAL.
func ParseProcessRef(text string) (ProcessRef, error) {
	pid, rest, _ := strings.Cut(text, ":")
	id, boot, full := strings.Cut(rest, "@")
	n, ok := parseDecimal(pid, 31)
	i, okID := parseDecimal(id, 64)
	r := ProcessRef{PID: int(n), ID: PidFDID(i)}
	if full {
		var err error
		r.BootID, err = ParseBootID(boot)
		ok = ok && err == nil && r.BootID != BootID{} && r.BootID.String() == boot
	}
	if !ok || !okID || n == 0 || i == 0 {
		return ProcessRef{}, notAProcess(strconv.Quote(text))
	}
	return r, nil
}

func notAProcess(text string) error {
	return refused(syscall.EINVAL, text+" is not the name of a process, which looks like 4711:25")
}

// AppendText implements [encoding.TextAppender]. The text is that of
// [ProcessRef.String], and "@" and the BootID behind it if that is not zero:
// "4711:25@e4852dac-db69-430a-8f3f-f227f27ae0a2". A ProcessRef without a PID or ID is
// an error that matches EINVAL.
func (r ProcessRef) AppendText(b []byte) ([]byte, error) {
	if r.PID < 1 || !fits32(r.PID) || r.ID == 0 {
		return b, notAProcess(r.String())
	}
	b = append(b, r.String()...)
	if r.BootID != (BootID{}) {
		b = append(append(b, '@'), r.BootID.String()...)
	}
	return b, nil
}

// MarshalText implements [encoding.TextMarshaler]; see [ProcessRef.AppendText].
func (r ProcessRef) MarshalText() ([]byte, error) { return r.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseProcessRef].
func (r *ProcessRef) UnmarshalText(text []byte) (err error) {
	*r, err = ParseProcessRef(string(text))
	return err
}

// MarshalJSON implements [json.Marshaler] as systemd writes a process in
// Varlink, the type ProcessId (src/libsystemd/sd-json/json-util.c,
// json_variant_new_pidref):
//
//	{"pid":4711,"pidfdId":25,"bootId":"e4852dacdb69430a8f3ff227f27ae0a2"}
//
// Without an ID there is just the PID, without a BootID no bootId, and the zero
// ProcessRef is null. What has no PID otherwise is an error that matches EINVAL.
//
// [json.Marshaler]: https://pkg.go.dev/encoding/json#Marshaler
func (r ProcessRef) MarshalJSON() ([]byte, error) {
	switch {
	case r == ProcessRef{}:
		return []byte("null"), nil
	case r.PID < 1 || !fits32(r.PID):
		return nil, notAProcess(r.String())
	}
	s := `{"pid":` + strconv.Itoa(r.PID)
	if r.ID != 0 {
		s += `,"pidfdId":` + r.ID.String()
		if r.BootID != (BootID{}) {
			s += `,"bootId":"` + r.BootID.plain() + `"`
		}
	}
	return []byte(s + "}"), nil
}

// UnmarshalJSON implements [json.Unmarshaler]. As systemd does
// (json_dispatch_pidref), it takes the object of [ProcessRef.MarshalJSON] or the PID
// alone, numbers that stand in strings, and either form of a boot ID. Numbers must be
// plain decimal integers. A pidfdId or bootId that is missing, zero or null is not known;
// without a pidfdId the ProcessRef cannot be opened. null is the zero ProcessRef. Other
// keys are ignored, which systemd does only where it is told to; pid, pidfdId or
// bootId twice is an error. Errors match EINVAL and leave r as it is.
//
// [json.Unmarshaler]: https://pkg.go.dev/encoding/json#Unmarshaler
func (r *ProcessRef) UnmarshalJSON(data []byte) error {
	d := jsonReader{rest: string(data)}
	ref := d.process()
	if d.next() != 0 || d.rest != "" {
		d.fail("more than one value")
	}
	if d.err != "" {
		return refused(syscall.EINVAL, "not a process in JSON: "+d.err)
	}
	*r = ref
	return nil
}

// A jsonReader takes JSON (RFC 8259) apart from the front.
type jsonReader struct {
	rest string
	err  string // what was wrong first; once there is something, rest is empty
}

func (d *jsonReader) fail(text string) {
	if d.err == "" {
		d.rest, d.err = "", text
	}
}

// process reads a ProcessRef.
func (d *jsonReader) process() (r ProcessRef) {
	switch d.next() {
	case 'n':
		d.word("null")
	case '{':
		seen := ""
		d.members(func(key string) {
			if key == "pid" || key == "pidfdId" || key == "bootId" {
				if strings.Contains(seen, key+" ") {
					d.fail(key + " twice")
				}
				seen += key + " "
			}
			switch {
			case key == "pid":
				r.PID = d.pid()
			case key == "pidfdId" && d.next() != 'n':
				r.ID = PidFDID(d.number64(key))
			case key == "bootId" && d.next() != 'n':
				boot, err := ParseBootID(d.str())
				if err != nil {
					d.fail(err.Error())
				}
				r.BootID = boot
			default:
				d.skip(1)
			}
		})
		if r.PID == 0 {
			d.fail("no pid")
		}
	default:
		r.PID = d.pid()
	}
	return r
}

func (d *jsonReader) pid() int {
	n := d.number64("pid")
	if n == 0 || n > 1<<31-1 {
		d.fail("pid is out of range")
	}
	return int(n)
}

// number64 reads an unsigned number, which may stand in a string.
func (d *jsonReader) number64(what string) uint64 {
	var s string
	if d.next() == '"' {
		s = d.str()
	} else {
		s = d.number()
	}
	n, ok := parseDecimal(s, 64)
	if !ok {
		d.fail(what + " is not an unsigned number")
	}
	return n
}

// next returns the first character that is not white space, 0 = the end.
func (d *jsonReader) next() byte {
	d.rest = strings.TrimLeft(d.rest, " \t\n\r")
	if d.rest == "" {
		return 0
	}
	return d.rest[0]
}

// take takes the character c, and tells whether it was there.
func (d *jsonReader) take(c byte) bool {
	ok := d.next() == c
	if ok {
		d.rest = d.rest[1:]
	}
	return ok
}

func (d *jsonReader) word(word string) {
	rest, ok := strings.CutPrefix(d.rest, word)
	if !ok {
		d.fail("a value is missing")
		return
	}
	d.rest = rest
}

// members reads an object; value has to read the value of each key.
func (d *jsonReader) members(value func(key string)) {
	d.take('{')
	if d.take('}') {
		return
	}
	for d.err == "" {
		key := d.str()
		if !d.take(':') {
			d.fail("a colon is missing")
			return
		}
		value(key)
		if d.take('}') {
			return
		}
		if !d.take(',') {
			d.fail("an object has no end")
		}
	}
}

// skip reads any value.
func (d *jsonReader) skip(depth int) {
	if depth > 1000 {
		d.fail("values within values too deep")
		return
	}
	switch d.next() {
	case '{':
		d.members(func(string) { d.skip(depth + 1) })
	case '[':
		d.take('[')
		if d.take(']') {
			return
		}
		for d.err == "" {
			d.skip(depth + 1)
			if d.take(']') {
				return
			}
			if !d.take(',') {
				d.fail("an array has no end")
			}
		}
	case '"':
		d.str()
	case 'n':
		d.word("null")
	case 't':
		d.word("true")
	case 'f':
		d.word("false")
	default:
		d.number()
	}
}

// number reads a number and returns it as it stands.
func (d *jsonReader) number() string {
	s := d.rest
	i := 0
	one := func(chars string) bool {
		ok := i < len(s) && strings.IndexByte(chars, s[i]) >= 0
		if ok {
			i++
		}
		return ok
	}
	digits := func() bool {
		start := i
		for one("0123456789") {
		}
		return i > start
	}
	one("-")
	ok := one("0") || digits()
	if ok && one(".") {
		ok = digits()
	}
	if ok && one("eE") {
		one("+-")
		ok = digits()
	}
	if !ok {
		d.fail("a value is missing")
		return ""
	}
	d.rest = s[i:]
	return s[:i]
}

// str reads a string. Escaped characters beyond ASCII come out as '?', for
// nothing that is looked for has any.
func (d *jsonReader) str() string {
	if !d.take('"') {
		d.fail("a string is missing")
		return ""
	}
	var out []byte
	for i := 0; i < len(d.rest); i++ {
		switch c := d.rest[i]; {
		case c == '"':
			d.rest = d.rest[i+1:]
			return string(out)
		case c < ' ':
			d.fail("a control character in a string")
			return ""
		case c != '\\':
			out = append(out, c)
		default:
			char, n := unescapeJSON(d.rest[i+1:])
			if n == 0 {
				d.fail("a bad escape in a string")
				return ""
			}
			out = append(out, char)
			i += n
		}
	}
	d.fail("a string has no end")
	return ""
}

// unescapeJSON reads what stands behind a backslash, of n characters; 0 = nothing good.
func unescapeJSON(s string) (char byte, n int) {
	if s == "" {
		return 0, 0
	}
	if i := strings.IndexByte(`"\/bfnrt`, s[0]); i >= 0 {
		return "\"\\/\b\f\n\r\t"[i], 1
	}
	if s[0] != 'u' || len(s) < 5 {
		return 0, 0
	}
	code := uint64(0)
	for _, c := range []byte(s[1:5]) {
		if digit(c) >= 16 {
			return 0, 0
		}
		code = code<<4 | digit(c)
	}
	if code >= 1<<7 {
		code = '?'
	}
	return byte(code), 5
}
