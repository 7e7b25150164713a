package install

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// What Nix reads is what was written, whatever it is.
func TestNixStrings(t *testing.T) {
	if _, err := exec.LookPath("nix-instantiate"); err != nil {
		t.Skip("reads strings with Nix: ", err)
	}
	want := []string{
		"", "plain", `"; users.users.root.password = "x`, `"quoted" 'text'`, `\`, `\"`, "${builtins.abort \"read\"}", "$${a}", "$", `\${a}`,
		"''${a}''", "two\nlines\r\n\ttab", "ä # no comment /* none */", "<nixpkgs>",
	}
	output, err := execx.New().Output(t.Context(), execx.Command{
		Name: "nix-instantiate", Args: []string{"--eval", "--strict", "--json", "--store", "dummy://", "-E", nixList(want)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := json.Unmarshal(output, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
