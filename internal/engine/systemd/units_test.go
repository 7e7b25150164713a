package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/registry"
)

func TestUnitCgroup(t *testing.T) {
	const unit = "devhost@demo.service"
	tests := []struct{ name, text, want string }{
		{"v2", "0::/machine.slice/devhost@demo.service/supervisor\n", "/machine.slice/devhost@demo.service"},
		{"v2, at its top", "0::/machine.slice/devhost@demo.service\n", "/machine.slice/devhost@demo.service"},
		{"v1", "9:pids:/other\n1:name=systemd:/machine.slice/devhost@demo.service\n", "/machine.slice/devhost@demo.service"},
		{"hybrid", "1:name=systemd:/\n0::/own.slice/devhost@demo.service/payload/init.scope\n", "/own.slice/devhost@demo.service"},
		{"a controller's hierarchy", "3:memory:/machine.slice/devhost@demo.service\n", ""},
		{"another container", "0::/machine.slice/devhost@demo.service2/supervisor\n", ""},
		{"another template", "0::/machine.slice/xdevhost@demo.service/supervisor\n", ""},
		{"supervisor of its own", "0::/devhost-1234/demo/supervisor\n", ""},
		{"nonsense", "x\n\n::", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := unitCgroup(test.text, unit); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestProperties(t *testing.T) {
	tests := []struct {
		name   string
		limits registry.Limits
		want   map[string]uint64
	}{
		{"none", registry.Limits{}, map[string]uint64{
			"CPUQuotaPerSecUSec": infinity, "IOWeight": infinity, "MemoryMax": infinity, "MemorySwapMax": infinity, "TasksMax": usualTasks,
		}},
		{"all", registry.Limits{MemoryBytes: 1 << 30, CPUs: 1.5, Tasks: 99, IOWeight: 7}, map[string]uint64{
			"CPUQuotaPerSecUSec": 1_500_000, "IOWeight": 7, "MemoryMax": 1 << 30, "MemorySwapMax": 0, "TasksMax": 99,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := map[string]uint64{}
			last := ""
			for _, property := range properties(test.limits) {
				got[property.Name] = property.Value.Value().(uint64)
				if property.Name < last {
					t.Errorf("%s comes after %s", property.Name, last)
				}
				last = property.Name
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("properties (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	tests := []struct {
		name, text, want string
		fails            bool
	}{
		{"text", `{"MESSAGE":"hello"}`, "hello", false},
		{"no text", `{"MESSAGE":[104,105,255]}`, "hi\xff", false},
		{"too long", `{"MESSAGE":null}`, "", false},
		{"none", `{}`, "", false},
		{"twice", `{"MESSAGE":["a","b"]}`, "", true},
		{"number", `{"MESSAGE":1}`, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var found entry
			err := json.Unmarshal([]byte(test.text), &found)
			if (err != nil) != test.fails || string(found.Message) != test.want {
				t.Errorf("got %q, %v", found.Message, err)
			}
		})
	}
}

func TestTimestamp(t *testing.T) {
	if got := timestamp(time.UnixMicro(1_700_000_000_000_042)); got != "@1700000000.000042" {
		t.Errorf("got %q", got)
	}
}

func TestTexts(t *testing.T) {
	layout, err := registry.NewLayout(`/srv/a "b" 5% $x`)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Layout: layout, Program: "/opt/dev host/devhost"}
	texts, err := e.texts()
	if err != nil {
		t.Fatal(err)
	}
	prefix := "devhost-" + layout.Instance()
	if len(texts) != len(ownUnits) {
		t.Errorf("there are %d units", len(texts))
	}
	template := texts[prefix+"@.service"]
	for _, want := range []string{
		`ExecStart="/opt/dev host/devhost" --state-dir "/srv/a \"b\" 5%% $$x" supervise --exec %i`,
		`RequiresMountsFor="/srv/a \"b\" 5%% $x"`,
		"Wants=" + prefix + "-refresh.path " + prefix + "-refresh.timer",
		"Slice=machine.slice", "Delegate=yes", "RestartForceExitStatus=133", "Type=notify",
	} {
		if !strings.Contains(template, want+"\n") && !strings.Contains(template, want+" ") {
			t.Errorf("the template lacks %q:\n%s", want, template)
		}
	}
	for name, text := range texts {
		if strings.Contains(text, "@devhost@") || strings.Contains(text, registry.DefaultStateDir) || !strings.HasPrefix(name, prefix) {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	if service := texts[prefix+"-refresh.service"]; !strings.Contains(service, `ReadWritePaths="/srv/a \"b\" 5%% $x"`) {
		t.Errorf("the service is:\n%s", service)
	}
}

func TestInstalled(t *testing.T) {
	usual := registry.Layout{State: registry.DefaultStateDir}
	folder := t.TempDir()
	defer func(before []string) { installed = before }(installed)
	installed = []string{folder}
	e := &Engine{Layout: usual, Program: "/usr/bin/devhost"}
	if texts, err := e.texts(); err != nil || texts["devhost@.service"] == "" || e.startsOnBoot() {
		t.Errorf("without an installation: %v, %v", texts, err)
	}
	write(t, folder+"/devhost@.service")
	if texts, err := e.texts(); err != nil || texts != nil || e.startsOnBoot() {
		t.Errorf("with one: %v, %v", texts, err)
	}
	write(t, folder+"/multi-user.target.wants/devhost-boot.service")
	if !e.startsOnBoot() {
		t.Error("the unit that starts containers is turned on")
	}
	other, err := registry.NewLayout("/srv/other")
	if err != nil {
		t.Fatal(err)
	}
	if e = (&Engine{Layout: other, Program: "/usr/bin/devhost"}); e.startsOnBoot() || e.isInstalled() {
		t.Error("what is installed is for the usual state folder")
	}
	if got := e.unit("a-b"); got != "devhost-"+other.Instance()+"@a-b.service" {
		t.Errorf("the unit is %s", got)
	}
}
