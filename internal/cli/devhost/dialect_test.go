package devhost

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSplitAliases(t *testing.T) {
	for text, want := range map[string][]string{
		"":           {},
		"''":         {},
		"app api":    {"app", "api"},
		"'app api'":  {"app", "api"},
		`"app"`:      {"app"},
		`"'a b'"`:    {"a", "b"},
		" a  b\ta\n": {"a", "b"},
		"'":          {"'"},
	} {
		t.Run(text, func(t *testing.T) {
			if got := splitAliases(text); !slices.Equal(got, want) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestAmount(t *testing.T) {
	const mebibyte, gibibyte = 1 << 20, 1 << 30
	for _, test := range []struct {
		text  string
		unit  int64
		want  int64
		fails bool
	}{
		{"2048", mebibyte, 2 * gibibyte, false},
		{"4G", mebibyte, 4 * gibibyte, false},
		{"512M", mebibyte, 512 * mebibyte, false},
		{"25", gibibyte, 25 * gibibyte, false},
		{"1.5", gibibyte, 3 * gibibyte / 2, false},
		{"", mebibyte, 0, false},
		{"much", mebibyte, 0, true},
		{"-1", mebibyte, 0, true},
		{"0", mebibyte, 0, true},
		{"NaN", mebibyte, 0, true},
		{"1e30", mebibyte, 0, true},
		{"1M", mebibyte, 0, true},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := amount(test.text, test.unit, 64*mebibyte)
			if (err != nil) != test.fails || got != test.want {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

func TestOutputHoldsNoSignOfADefect(t *testing.T) {
	folder := t.TempDir()
	open := func(name string) *os.File {
		t.Helper()
		file, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	a := &app{streams: Streams{Out: open("out"), Err: open("err")}}
	status := a.withoutDefects(func() int {
		fmt.Fprintf(a.streams.Out, "one %s two\n", defectSign)
		fmt.Fprint(a.streams.Out, "no line break "+defectSign[:10])
		fmt.Fprint(a.streams.Out, defectSign[10:])
		fmt.Fprintln(a.streams.Err, defectSign+defectSign)
		fmt.Fprintln(a.streams.Err, defectSign[:10]+defectSign+defectSign[10:])
		// As long as a line gets, and longer.
		fmt.Fprintln(a.streams.Err, strings.Repeat("x", 1<<20)+strings.Repeat(defectSign, 1<<16))
		return 5
	})
	if status != 5 {
		t.Errorf("the status is %d", status)
	}
	for _, name := range []string{"out", "err"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), defectSign) || !strings.Contains(string(text), defectInText) {
			t.Errorf("%s holds %.200s", name, text)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(folder, "out")); string(text) != "one "+defectInText+" two\nno line break "+defectInText+"\n" {
		t.Errorf("the output is %q", text)
	}
}

func TestAskHydra(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Accept") != "application/json":
			http.Error(w, "a page", http.StatusNotAcceptable)
		case r.URL.Path == "/eval/7/job/release":
			_, _ = io.WriteString(w, `{"id": 4711, "buildproducts": {}}`)
		case r.URL.Path == "/eval/8/job/release":
			_, _ = io.WriteString(w, `{"error": "x"}`)
		case r.URL.Path == "/eval/9/job/release":
			_, _ = io.WriteString(w, `<html>`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for eval, want := range map[string]string{"7": "", "8": "names no build", "9": "cannot be read", "10": "404"} {
		t.Run(eval, func(t *testing.T) {
			result, err := askHydra(t.Context(), server.Client(), server.URL+"/eval/"+eval+"/job/release")
			if want == "" {
				if err != nil || channelOfBuild(result) != "https://hydra.flyingcircus.io/build/4711/download/1/nixexprs.tar.xz" {
					t.Errorf("%+v, %v", result, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}
