package settings

import (
	"encoding/json"
	"testing"
)

func TestPortRange(t *testing.T) {
	for _, test := range []struct {
		text     string
		want     PortRange
		in, out  uint16
		readable string
	}{
		{"8080", PortRange{8080, 8080}, 8080, 8081, "8080"},
		{"20000-29999", PortRange{20000, 29999}, 29999, 30000, "20000-29999"},
		{"1-65535", PortRange{1, 65535}, 65535, 0, "1-65535"},
		{"80-80", PortRange{80, 80}, 80, 79, "80"},
	} {
		t.Run(test.text, func(t *testing.T) {
			var got PortRange
			if err := json.Unmarshal([]byte(`"`+test.text+`"`), &got); err != nil || got != test.want {
				t.Fatalf("%v, %v", got, err)
			}
			if !got.Contains(test.in) || got.Contains(test.out) {
				t.Errorf("%d is in it: %t; %d: %t", test.in, got.Contains(test.in), test.out, got.Contains(test.out))
			}
			if text, err := json.Marshal(got); err != nil || string(text) != `"`+test.readable+`"` {
				t.Errorf("it is written as %s, %v", text, err)
			}
		})
	}
	for _, bad := range []string{"", "0", "-1", "1-", "-", "2-1", "65536", "1-65536", "a", "1 - 2", "0-5", "1-2-3", "+1"} {
		t.Run("bad "+bad, func(t *testing.T) {
			var got PortRange
			if err := got.UnmarshalText([]byte(bad)); err == nil {
				t.Errorf("it is read as %v", got)
			}
		})
	}
	if got := JoinPortRanges([]PortRange{{80, 80}, {1024, 2048}}); got != "80, 1024-2048" {
		t.Errorf("got %q", got)
	}
}
