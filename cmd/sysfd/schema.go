//go:build linux

package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// A schema says what -json prints.
type schema struct {
	what   string
	fields []fieldDoc
}

// A fieldDoc says what a field is for. The name of one within another has the path to it.
type fieldDoc struct {
	name, kind string
	optional   bool
	usage      string
}

func (f fieldDoc) String() string {
	if f.optional {
		return f.name + ": " + f.kind + ", may be missing"
	}
	return f.name + ": " + f.kind
}

// schemaOf reads the schema off the type of v, which is a struct or a slice of them. What a field is for stands in its
// tag "help".
func schemaOf(v any) schema {
	t := reflect.TypeOf(v)
	s := schema{what: "one object"}
	if t.Kind() == reflect.Slice {
		t, s.what = t.Elem(), "a list of objects"
	}
	s.add(t, "", false)
	return s
}

func (s *schema) add(t reflect.Type, prefix string, optional bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Anonymous {
			s.add(inner, prefix, optional || f.Type != inner)
			continue
		}
		if !f.IsExported() {
			continue
		}
		name, omit, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := jsonKind(inner)
		s.fields = append(s.fields, fieldDoc{prefix + name, kind, optional || omit == "omitempty", f.Tag.Get("help")})
		switch kind {
		case "object":
			if inner.Kind() == reflect.Struct {
				s.add(inner, prefix+name+".", false)
			}
		case "list of objects":
			s.add(inner.Elem(), prefix+name+"[].", false)
		}
	}
}

func jsonKind(t reflect.Type) string {
	switch {
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "string"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Slice:
		return "list of " + jsonKind(t.Elem()) + "s"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.ConvertibleTo(reflect.TypeFor[uint64]()):
		return "number"
	}
	panic(fmt.Sprint("no kind of JSON for ", t))
}
