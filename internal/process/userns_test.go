package process

import "testing"

func TestRootID(t *testing.T) {
	tests := []struct {
		name, text string
		want       int
		wantError  bool
	}{
		{"picked", "         0     524288      65536\n", 524288, false},
		{"none", "         0          0 4294967295\n", 0, false},
		{"several ranges", "  1000 5 1\n  0 700000 1000\n", 700000, false},
		{"root is not mapped", "  1000 5 1\n", 0, true},
		{"empty", "", 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := RootID(test.text)
			if got != test.want || (err != nil) != test.wantError {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}
