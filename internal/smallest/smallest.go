// Package smallest makes a program of some 150 bytes, for tests and benchmarks with more processes
// than programs of a common size leave memory for.
package smallest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
)

// A machine is what the program is made for.
type machine struct {
	class elf.Class
	elf   elf.Machine
	code  []byte
}

// The code reads one byte from descriptor 0 and exits with it. If there is none, it is 255.
var machines = map[string]machine{
	"amd64": {elf.ELFCLASS64, elf.EM_X86_64, []byte{
		0x6a, 0xff, //                   push $-1
		0x31, 0xc0, //                   xor  %eax, %eax      read
		0x31, 0xff, //                   xor  %edi, %edi
		0x48, 0x89, 0xe6, //             mov  %rsp, %rsi
		0xba, 0x01, 0x00, 0x00, 0x00, // mov  $1, %edx
		0x0f, 0x05, //                   syscall
		0x0f, 0xb6, 0x3c, 0x24, //       movzbl (%rsp), %edi
		0xb8, 0x3c, 0x00, 0x00, 0x00, // mov  $60, %eax       exit
		0x0f, 0x05, //                   syscall
	}},
	"386": {elf.ELFCLASS32, elf.EM_386, []byte{
		0x6a, 0xff, //                   push $-1
		0xb8, 0x03, 0x00, 0x00, 0x00, // mov  $3, %eax        read
		0x31, 0xdb, //                   xor  %ebx, %ebx
		0x89, 0xe1, //                   mov  %esp, %ecx
		0xba, 0x01, 0x00, 0x00, 0x00, // mov  $1, %edx
		0xcd, 0x80, //                   int  $0x80
		0x0f, 0xb6, 0x1c, 0x24, //       movzbl (%esp), %ebx
		0xb8, 0x01, 0x00, 0x00, 0x00, // mov  $1, %eax        exit
		0xcd, 0x80, //                   int  $0x80
	}},
	"arm64": {elf.ELFCLASS64, elf.EM_AARCH64, []byte{
		0xe9, 0x1f, 0x80, 0x52, // mov  w9, #255
		0xe9, 0x0f, 0x1f, 0x38, // strb w9, [sp, #-16]!
		0x00, 0x00, 0x80, 0xd2, // mov  x0, #0
		0xe1, 0x03, 0x00, 0x91, // mov  x1, sp
		0x22, 0x00, 0x80, 0xd2, // mov  x2, #1
		0xe8, 0x07, 0x80, 0xd2, // mov  x8, #63           read
		0x01, 0x00, 0x00, 0xd4, // svc  #0
		0xe0, 0x03, 0x40, 0x39, // ldrb w0, [sp]
		0xa8, 0x0b, 0x80, 0xd2, // mov  x8, #93           exit
		0x01, 0x00, 0x00, 0xd4, // svc  #0
	}},
}

// Program returns an executable file for Linux. It waits until there is a byte in descriptor 0, and
// exits with it, or with 255 at the end of the file.
func Program() ([]byte, error) {
	m, ok := machines[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no smallest program for %s", runtime.GOARCH)
	}
	const address, page = 0x400000, 0x10000
	headerSize, segmentSize := binary.Size(elf.Header32{}), binary.Size(elf.Prog32{})
	word := func(n int) any { return uint32(n) }
	if m.class == elf.ELFCLASS64 {
		headerSize, segmentSize = binary.Size(elf.Header64{}), binary.Size(elf.Prog64{})
		word = func(n int) any { return uint64(n) }
	}
	start := headerSize + segmentSize
	size := start + len(m.code)
	header := []any{
		[elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(m.class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		uint16(elf.ET_EXEC), uint16(m.elf), uint32(elf.EV_CURRENT),
		word(address + start), word(headerSize), word(0), uint32(0), // entry, segments, sections, flags
		[6]uint16{uint16(headerSize), uint16(segmentSize), 1},
	}
	kind, access := uint32(elf.PT_LOAD), uint32(elf.PF_R|elf.PF_X)
	segment := []any{kind, word(0), word(address), word(address), word(size), word(size), access, word(page)}
	if m.class == elf.ELFCLASS64 {
		segment = []any{kind, access, word(0), word(address), word(address), word(size), word(size), word(page)}
	}
	var file bytes.Buffer
	for _, field := range slices.Concat(header, segment, []any{m.code}) {
		if err := binary.Write(&file, binary.LittleEndian, field); err != nil {
			return nil, err
		}
	}
	return file.Bytes(), nil
}
