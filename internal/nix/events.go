package nix

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"devhost/internal/terminal"
)

// EventKind says what an Event reports.
type EventKind int

// The kinds of Event.
const (
	// Counts: only the numbers changed.
	Counts EventKind = iota
	// BuildStarted and BuildEnded: Name is the derivation's name.
	BuildStarted
	BuildEnded
	// FetchStarted: Name is the store path's name or the URL that is
	// downloaded.
	FetchStarted
	// BuilderOutput: Line is a line that the builder of Name printed.
	BuilderOutput
)

// Event is a step of a build. The numbers are always those of the whole
// build so far.
type Event struct {
	Kind EventKind
	Name string
	Line string
	// Current is the build that runs, the one started last of several; "" if
	// there is none.
	Current string
	// Built of ToBuild derivations have ended, well or not.
	Built, ToBuild int
	// Fetched of ToFetch bytes are downloaded.
	Fetched, ToFetch int64
}

// The activity and result types of Nix' internal-json log, from logging.hh.
const (
	activityFileTransfer = 101
	activityBuild        = 105
	activitySubstitute   = 108

	resultBuildLogLine = 101
	resultProgress     = 105
	resultSetExpected  = 106
)

// keptBuilderLines is how many of a builder's last lines a BuildError shows.
const keptBuilderLines = 20

// logLine is one line of the internal-json log after its "@nix " prefix.
type logLine struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Text   string            `json:"text"`
	Msg    string            `json:"msg"`
	Fields []json.RawMessage `json:"fields"`
}

func (l logLine) number(index int) int64 {
	var value int64
	if index < len(l.Fields) {
		_ = json.Unmarshal(l.Fields[index], &value)
	}
	return value
}

func (l logLine) text(index int) string {
	var value string
	if index < len(l.Fields) {
		_ = json.Unmarshal(l.Fields[index], &value)
	}
	return value
}

// logParser follows the internal-json log of one Nix process. The format is
// that of JSONLogger in Nix' logging.cc.
type logParser struct {
	// report receives the events; nil drops them.
	report func(Event)
	// plain receives a readable form of the log.
	plain func(string)

	state    Event
	started  int
	running  []runningBuild
	tails    map[string][]string
	transfer map[uint64][2]int64
	expected map[uint64]int64
	// messages are the error messages, without colours, oldest first.
	messages []string
}

type runningBuild struct {
	id  uint64
	drv string
}

func newLogParser(report func(Event), plain func(string)) *logParser {
	return &logParser{
		report: report, plain: plain,
		tails: map[string][]string{}, transfer: map[uint64][2]int64{}, expected: map[uint64]int64{},
	}
}

// Line takes one line of standard error.
func (p *logParser) Line(line string) {
	rest, isJSON := strings.CutPrefix(line, "@nix ")
	var entry logLine
	if !isJSON || json.Unmarshal([]byte(rest), &entry) != nil {
		p.message(0, line)
		return
	}
	switch entry.Action {
	case "msg":
		p.message(entry.Level, ansiEscape.ReplaceAllString(entry.Msg, ""))
	case "start":
		p.start(entry)
	case "stop":
		p.stop(entry.ID)
	case "result":
		p.result(entry)
	}
}

// announcement is how Nix says how many builds there will be. The numbers of
// its activity "builds" are no good: they start at 1, and in 2.34 one too many
// are expected in the end.
var announcement = regexp.MustCompile(`^(?:this derivation|these ([0-9]+) derivations) will be built:$`)

func (p *logParser) message(level int, text string) {
	p.log(text)
	if match := announcement.FindStringSubmatch(text); match != nil {
		count, err := strconv.Atoi(match[1])
		if err != nil {
			count = 1
		}
		p.state.ToBuild = max(p.state.ToBuild, count)
		p.send(Counts, "", "")
	}
	if level == 0 && strings.Contains(text, "error:") {
		p.messages = append(p.messages, text)
	}
}

func (p *logParser) start(entry logLine) {
	if entry.Text != "" && entry.Level <= 3 {
		p.log(entry.Text)
	}
	switch entry.Type {
	case activityBuild:
		drv := entry.text(0)
		p.started++
		p.state.ToBuild = max(p.state.ToBuild, p.started)
		p.running = append(p.running, runningBuild{entry.ID, drv})
		p.send(BuildStarted, DerivationName(drv), "")
	case activitySubstitute:
		p.send(FetchStarted, storeName(entry.text(0)), "")
	case activityFileTransfer:
		p.transfer[entry.ID] = [2]int64{}
	}
}

func (p *logParser) stop(id uint64) {
	for i, build := range p.running {
		if build.id == id {
			p.running = append(p.running[:i:i], p.running[i+1:]...)
			p.state.Built++
			p.send(BuildEnded, DerivationName(build.drv), "")
			return
		}
	}
}

func (p *logParser) result(entry logLine) {
	switch entry.Type {
	case resultBuildLogLine:
		drv := ""
		for _, build := range p.running {
			if build.id == entry.ID {
				drv = build.drv
			}
		}
		line := terminal.Line(entry.text(0))
		p.tails[drv] = append(p.tails[drv], line)
		if excess := len(p.tails[drv]) - keptBuilderLines; excess > 0 {
			p.tails[drv] = p.tails[drv][excess:]
		}
		p.log(DerivationName(drv) + "> " + line)
		p.send(BuilderOutput, DerivationName(drv), line)
	case resultProgress:
		if _, ok := p.transfer[entry.ID]; ok {
			p.transfer[entry.ID] = [2]int64{entry.number(0), entry.number(1)}
			p.countBytes()
		}
	case resultSetExpected:
		if entry.number(0) == activityFileTransfer {
			p.expected[entry.ID] = entry.number(1)
			p.countBytes()
		}
	}
}

func (p *logParser) countBytes() {
	var fetched, total, expected int64
	for _, bytes := range p.transfer {
		fetched, total = fetched+bytes[0], total+bytes[1]
	}
	for _, bytes := range p.expected {
		expected += bytes
	}
	before := p.state
	p.state.Fetched, p.state.ToFetch = fetched, max(total, expected)
	if p.state != before {
		p.send(Counts, "", "")
	}
}

func (p *logParser) send(kind EventKind, name, line string) {
	p.state.Current = ""
	if len(p.running) > 0 {
		p.state.Current = DerivationName(p.running[len(p.running)-1].drv)
	}
	if p.report == nil {
		return
	}
	event := p.state
	event.Kind, event.Name, event.Line = kind, name, line
	p.report(event)
}

func (p *logParser) log(text string) {
	if p.plain != nil {
		p.plain(text)
	}
}

// storeName is the name part of a store path, or the text itself.
func storeName(path string) string {
	base := strings.TrimPrefix(path, StoreDir+"/")
	const hashAndDash = 33
	if base != path && len(base) > hashAndDash && base[hashAndDash-1] == '-' {
		return base[hashAndDash:]
	}
	return path
}

// DerivationName is the name that a person knows a derivation by: without
// folder, hash and ".drv".
func DerivationName(drvPath string) string {
	return strings.TrimSuffix(storeName(drvPath), ".drv")
}
