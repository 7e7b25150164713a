package settings

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"devhost/internal/names"
)

// decoder reads one document into a struct, and goes on behind a problem, so
// that all are found at once.
type decoder struct {
	text     []byte
	json     *jsontext.Decoder
	problems []Problem
	// offsets are where the values begin, by their key's path, in bytes.
	offsets map[string]int64
}

// decode reads the text over what is in the struct already, which into points to.
func decode(text []byte, into any) *decoder {
	d := &decoder{
		text: text, offsets: map[string]int64{},
		// Doubles are found here, with their path.
		json: jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true)),
	}
	if len(bytes.TrimSpace(text)) == 0 {
		d.report(0, "", "it is empty; the least that it can hold is { \"version\": 1 }")
		return d
	}
	if err := d.object(reflect.ValueOf(into).Elem(), ""); err != nil {
		d.syntax(err)
		return d
	}
	switch _, err := d.json.ReadToken(); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
	default:
		d.report(d.json.InputOffset()-1, "", "something stands behind the closing brace; the file holds one object")
	}
	return d
}

// report adds a problem of the value or key at an offset.
func (d *decoder) report(offset int64, path, reason string) {
	line, column := position(d.text, offset)
	d.problems = append(d.problems, Problem{Line: line, Column: column, Key: path, Reason: reason, Example: example(path)})
}

func (d *decoder) syntax(err error) {
	offset, reason := d.json.InputOffset(), err.Error()
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		offset, reason = syntactic.ByteOffset, syntactic.Err.Error()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		offset, reason = int64(len(d.text)), "it ends too early; a brace, bracket or quote is not closed"
	}
	if rest := bytes.TrimLeft(d.text[min(offset, int64(len(d.text))):], ", \t\r\n"); len(rest) > 0 && d.text[offset] == ',' && (rest[0] == '}' || rest[0] == ']') {
		reason = "a comma stands before the closing brace or bracket"
	}
	d.report(offset, "", "it is no good JSON: "+strings.TrimPrefix(reason, "jsontext: "))
}

// value reads the value that comes next into a field. The error is one of
// syntax, behind which nothing can be read.
func (d *decoder) value(into reflect.Value, path string) error {
	_, isText := into.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case into.Kind() == reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return d.value(into.Elem(), path)
	case into.Kind() == reflect.Struct && !isText:
		return d.object(into, path)
	case into.Kind() == reflect.Slice && !isText:
		return d.list(into, path)
	}
	raw, start, err := d.whole(path)
	if err != nil {
		return err
	}
	if reason := d.leaf(into, raw); reason != "" {
		d.report(start, path, reason)
	}
	return nil
}

// whole reads the next value as it stands.
func (d *decoder) whole(path string) (raw jsontext.Value, start int64, err error) {
	if raw, err = d.json.ReadValue(); err != nil {
		return nil, 0, err
	}
	start = d.json.InputOffset() - int64(len(raw))
	d.offsets[path] = start
	return raw, start, nil
}

// kinds are what the values of JSON are called.
var kinds = map[jsontext.Kind]string{'n': "null", 't': "true", 'f': "false", '"': "a text", '0': "a number", '{': "an object", '[': "a list"}

// leaf reads a value without parts. It returns what is wrong with it, or "".
func (d *decoder) leaf(into reflect.Value, raw jsontext.Value) string {
	_, isText := into.Addr().Interface().(encoding.TextUnmarshaler)
	wanted, fits := "", false
	switch kind := into.Kind(); {
	case isText || kind == reflect.String:
		wanted, fits = "a text in quotes", raw.Kind() == '"'
	case kind == reflect.Bool:
		wanted, fits = "true or false", raw.Kind() == 't' || raw.Kind() == 'f'
	case into.CanUint():
		wanted, fits = fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-into.Type().Bits())), raw.Kind() == '0'
	case into.CanInt():
		wanted, fits = "a whole number", raw.Kind() == '0'
	case into.CanFloat():
		wanted, fits = "a number", raw.Kind() == '0'
	}
	if !fits {
		reason := fmt.Sprintf("it must be %s, not %s", wanted, kinds[raw.Kind()])
		if raw.Kind() == 'n' {
			reason += "; leave the key out for its default"
		}
		return reason
	}
	// What was read before stays where this one is no good.
	read := reflect.New(into.Type())
	err := json.Unmarshal(raw, read.Interface())
	var semantic *json.SemanticError
	switch {
	case err == nil:
		into.Set(read.Elem())
		return ""
	case isText && errors.As(err, &semantic) && semantic.Err != nil:
		return semantic.Err.Error()
	default:
		return fmt.Sprintf("it must be %s, not %s", wanted, raw)
	}
}

func (d *decoder) list(into reflect.Value, path string) error {
	if d.json.PeekKind() != '[' {
		return d.notA("a list in brackets", path)
	}
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	d.offsets[path] = d.json.InputOffset() - 1
	list := reflect.MakeSlice(into.Type(), 0, 0)
	for i := 0; ; i++ {
		if d.json.PeekKind() == ']' {
			into.Set(list)
			_, err := d.json.ReadToken()
			return err
		}
		element := reflect.New(into.Type().Elem()).Elem()
		before := len(d.problems)
		if err := d.value(element, path+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
		if len(d.problems) == before {
			list = reflect.Append(list, element)
		}
	}
}

// notA reads a value that has the wrong shape.
func (d *decoder) notA(wanted, path string) error {
	raw, start, err := d.whole(path)
	if err == nil {
		d.report(start, path, fmt.Sprintf("it must be %s, not %s", wanted, kinds[raw.Kind()]))
	}
	return err
}

func (d *decoder) object(into reflect.Value, path string) error {
	if d.json.PeekKind() != '{' {
		return d.notA("an object in braces", path)
	}
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	d.offsets[path] = d.json.InputOffset() - 1
	fields := fieldsOf(into)
	first := map[string]int64{}
	for d.json.PeekKind() != '}' {
		raw, err := d.json.ReadValue()
		if err != nil {
			return err
		}
		start := d.json.InputOffset() - int64(len(raw))
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return err
		}
		inner := join(path, name)
		field, known := fields[name]
		if before, twice := first[name]; twice {
			line, _ := position(d.text, before)
			d.report(start, inner, fmt.Sprintf("it is there twice, first in line %d", line))
			known = false
		} else if !known {
			d.report(start, inner, unknownKey(name, path, fields))
		}
		first[name] = start
		if !known {
			if err := d.json.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if err := d.value(field, inner); err != nil {
			return err
		}
	}
	_, err := d.json.ReadToken()
	return err
}

func unknownKey(name, path string, fields map[string]reflect.Value) string {
	known := make([]string, 0, len(fields))
	for key := range fields {
		known = append(known, key)
	}
	reason := "there is no such key"
	if meant := names.Closest(name, known); meant != "" {
		reason += fmt.Sprintf("; did you mean %q?", join(path, meant))
	}
	return reason
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldsOf are the fields of a struct by their keys.
func fieldsOf(value reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range value.NumField() {
		key, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		fields[key] = value.Field(i)
	}
	return fields
}

// position is the line and the column of an offset, from 1 on; a column is a
// byte, as compilers and editors count them.
func position(text []byte, offset int64) (line, column int) {
	before := text[:min(max(offset, 0), int64(len(text)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
}
