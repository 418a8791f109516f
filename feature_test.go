//go:build linux

package sysfd

import (
	"errors"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// Each feature is there from its version on, or as the table of environments has it. Before that it is not, but for kernels of
// vendors who have backported it; those that CI and test/vm run on are none of these.
func TestFeatures(t *testing.T) {
	keepsDescriptors(t)
	backports := os.Getenv("CI") == "" && os.Getenv("SYSFD_TEST_VM") == ""
	for _, f := range Features() {
		err := probe(t, f)
		switch e := surroundings(); {
		case errors.Is(err, syscall.EPERM) && rights.Filter():
			t.Logf("%s: a seccomp filter refuses it", f)
		case slices.Contains(e.lacks, f) && (err != nil || e.instead):
			matches(t, err, errors.ErrUnsupported)
		case slices.Contains(e.open, f):
			matches(t, err, syscall.ENODATA)
		case e.instead:
			if err != nil {
				t.Errorf("%s should have %s: %v", e.name, f, err)
			}
		case f == FeatureXattr && !rights.Has(rights.SysAdmin):
			matches(t, err, syscall.EPERM, os.ErrPermission) // on any kernel
		case olderThan(t, f.Since()):
			if err == nil && backports {
				t.Logf("%s: there on %s", f, release(t))
			} else if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: since Linux %s, and on %s: %v", f, f.Since(), release(t), err)
			}
		case err == nil:
		case f == FeatureCgroupID && errors.Is(err, syscall.ENODATA) && !isOnCgroup2("/sys/fs/cgroup") && !isOnCgroup2("/sys/fs/cgroup/unified"):
			t.Log(err)
		case f == FeatureOpenByHandle && !rights.Has(rights.DACReadSearch), f == FeatureSetns && !rights.Has(rights.SysAdmin), f == FeatureMadvise && !rights.Has(rights.SysNice):
			matches(t, err, syscall.EPERM, os.ErrPermission)
		default:
			t.Errorf("%s: since Linux %s, and on %s: %v", f, f.Since(), release(t), err)
		}
	}
}

func TestNoFeature(t *testing.T) {
	for _, f := range []Feature{-1, Feature(len(Features()))} {
		matches(t, f.Probe(), syscall.EINVAL)
		if f.Since() != "" || !strings.HasPrefix(f.String(), "Feature(") {
			t.Errorf("%q, %q", f.Since(), f)
		}
	}
}

// What a filter answers is not taken for a kernel that leaves it open.
func TestFeatureExitStatusRefused(t *testing.T) {
	needs(t, FeaturePidFD)
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	for errno, want := range map[syscall.Errno]error{syscall.EPERM: os.ErrPermission, syscall.ENOSYS: errors.ErrUnsupported} {
		var errFilter, err error
		onThrowawayThread(func() {
			errFilter = refuse(map[int]syscall.Errno{unix.SYS_IOCTL: errno})
			err = FeatureExitStatus.Probe()
		})
		if errFilter != nil {
			lacks(t, "seccomp filters: "+errFilter.Error())
		}
		matches(t, err, errno, want)
	}
}

// What a sandbox accepts without doing it, or refuses with one answer for all, is not there.
func TestFeaturePretended(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	for _, test := range []struct {
		call     int
		answer   syscall.Errno
		features []Feature
	}{
		{unix.SYS_NAME_TO_HANDLE_AT, syscall.EOPNOTSUPP, []Feature{FeatureFileHandle, FeatureHandleFID, FeatureMountIDUnique, FeatureHandleConnectable}},
		{unix.SYS_NAME_TO_HANDLE_AT, syscall.EOVERFLOW, []Feature{FeatureHandleFID, FeatureMountIDUnique, FeatureHandleConnectable}},
		{unix.SYS_NAME_TO_HANDLE_AT, 0, []Feature{FeatureFileHandle, FeatureHandleFID, FeatureMountIDUnique, FeatureHandleConnectable}},
		{unix.SYS_WAITID, syscall.ECHILD, []Feature{FeatureWait}},
		{unix.SYS_PIDFD_SEND_SIGNAL, 0, []Feature{FeatureSendSignal, FeatureSignalTo}},
		{unix.SYS_SETNS, 0, []Feature{FeatureSetns}},
		{unix.SYS_PROCESS_MADVISE, 0, []Feature{FeatureMadvise}},
		{unix.SYS_PROCESS_MRELEASE, 0, []Feature{FeatureMrelease}},
		{unix.SYS_PROCESS_MRELEASE, syscall.EINVAL, []Feature{FeatureMrelease}},
		{unix.SYS_IOCTL, 0, []Feature{FeatureFileSystemID, FeatureNamespace, FeatureInfo, FeatureExitStatus}},
		{unix.SYS_FREMOVEXATTR, 0, []Feature{FeatureXattr}},
	} {
		for _, f := range test.features {
			var errFilter, err error
			onThrowawayThread(func() {
				errFilter = refuse(map[int]syscall.Errno{test.call: test.answer})
				err = f.Probe()
			})
			if errFilter != nil {
				lacks(t, "seccomp filters: "+errFilter.Error())
			}
			if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.ENODATA) {
				t.Errorf("%s, with %d from call %d: %v", f, test.answer, test.call, err)
			}
		}
	}
	// A socket option that has no effect.
	number, ok := callNumbersHere["setsockopt"]
	if !ok || number == callNumbersHere["socket"] {
		return // one number for all calls of sockets
	}
	var errFilter, err error
	onThrowawayThread(func() {
		errFilter = refuse(map[int]syscall.Errno{number: 0})
		err = FeaturePassPidFD.Probe()
	})
	if errFilter != nil {
		t.Fatal(errFilter)
	}
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
}

func isOnCgroup2(dir string) bool {
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC
}

// A documentedFeature is what the comment at the constant of a feature says.
type documentedFeature struct {
	versions string   // "6.9, in a 32-bit program 6.14"
	links    []string // "PidFD.ID"
}

// documentedFeatures reads feature.go.
func documentedFeatures(t *testing.T) (found []documentedFeature, pkg *doc.Package) {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil || !slices.Contains(names, "feature.go") {
		lacks(t, "the sources of the package")
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "zsys_") && name != "zsys_linux_amd64.go" {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if pkg, err = doc.NewFromFiles(fset, files, "github.com/sysfd/sysfd"); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^Linux ([^:]+): .`)
	link := regexp.MustCompile(`\[([\w.]+)\]`)
	for _, typ := range pkg.Types {
		if typ.Name != "Feature" {
			continue
		}
		for _, spec := range typ.Consts[0].Decl.Specs {
			comment := spec.(*ast.ValueSpec).Comment.Text()
			m := form.FindStringSubmatch(comment)
			if m == nil {
				t.Fatalf("%q", comment)
			}
			d := documentedFeature{versions: m[1]}
			for _, m := range link.FindAllStringSubmatch(comment, -1) {
				d.links = append(d.links, m[1])
			}
			found = append(found, d)
		}
	}
	return found, pkg
}

// What the documentation says is what the table says.
func TestFeatureDocs(t *testing.T) {
	documented, pkg := documentedFeatures(t)
	if len(documented) != len(features) {
		t.Fatalf("%d features are documented, there are %d", len(documented), len(features))
	}
	docs := map[string]string{}
	add := func(receiver string, funcs []*doc.Func) {
		for _, f := range funcs {
			docs[receiver+f.Name] = f.Doc
		}
	}
	constants := func(values []*doc.Value) {
		for _, v := range values {
			for _, spec := range v.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				for _, name := range spec.Names {
					docs[name.Name] = spec.Doc.Text() + spec.Comment.Text()
				}
			}
		}
	}
	add("", pkg.Funcs)
	constants(pkg.Consts)
	for _, typ := range pkg.Types {
		constants(typ.Consts)
		add("", typ.Funcs)
		add(typ.Name+".", typ.Methods)
	}
	for i, d := range documented {
		f := features[i]
		want := f.since
		if Feature(i) == FeaturePidFDID {
			want += ", in a 32-bit program " + FeatureOpenByID.Since()
		}
		if d.versions != want {
			t.Errorf("%s: its comment says %s, the table %s", f.name, d.versions, want)
		}
		for _, name := range d.links {
			text, ok := docs[name]
			if text = strings.Join(strings.Fields(text), " "); !ok || !regexp.MustCompile(`Linux `+regexp.QuoteMeta(f.since)+`\b`).MatchString(text) {
				t.Errorf("the documentation of %s does not say Linux %s: %s", name, f.since, text)
			}
		}
	}
}

// The table in the README is that of the package.
func TestReadmeFeatures(t *testing.T) {
	documented, _ := documentedFeatures(t)
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "| what | in Go | Linux | before that |\n|---|---|---|---|\n"
	_, table, found := strings.Cut(string(text), head)
	if !found {
		t.Fatalf("no table with this head:\n%s", head)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")
	if len(rows) != len(features) {
		t.Errorf("%d rows for %d features", len(rows), len(features))
	}
	for i, d := range documented {
		want := "| " + features[i].name + " | `" + strings.Join(d.links, "`, `") + "` | " + d.versions + " | "
		if i >= len(rows) || !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %d is not %s", i+1, want)
		}
	}
}
