package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// warmUps are the runs before the first that counts.
const warmUps = 2

// samples are measured times.
type samples []time.Duration

// at is the value below which the share lies; 0.5 gives the median.
func (s samples) at(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	if len(sorted) == 0 {
		return 0
	}
	position := share * float64(len(sorted)-1)
	below := int(position)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	return sorted[below] + time.Duration((position-float64(below))*float64(sorted[below+1]-sorted[below]))
}

func (s samples) median() time.Duration { return s.at(0.5) }

// String gives the median and the range in which four of five runs lie.
func (s samples) String() string {
	return fmt.Sprintf("%s (p10 %s, p90 %s)", inMilliseconds(s.median()), inMilliseconds(s.at(0.1)), inMilliseconds(s.at(0.9)))
}

func inMilliseconds(d time.Duration) string {
	milliseconds := float64(d) / float64(time.Millisecond)
	decimals := 1
	if milliseconds >= 100 {
		decimals = 0
	}
	return strconv.FormatFloat(milliseconds, 'f', decimals, 64) + " ms"
}

// measured is one thing that takes time.
type measured func(context.Context) (time.Duration, error)

// alternate measures several things in turn, in an order that changes with
// every round, so that they see the same weather. The first rounds are for
// warming up.
func (b *bench) alternate(ctx context.Context, things ...measured) ([]samples, error) {
	taken := make([]samples, len(things))
	for round := range warmUps + b.runs {
		for i := range things {
			which := (round + i) % len(things)
			took, err := things[which](ctx)
			if err != nil {
				return nil, err
			}
			if round >= warmUps {
				taken[which] = append(taken[which], took)
			}
		}
	}
	return taken, nil
}

// table is what is printed at the end.
type table struct{ rows [][]string }

// bound adds a figure that has to be reached.
func (t *table) bound(what, figure, bound string, runs int, reached bool) {
	verdict := "reached"
	if !reached {
		verdict = "MISSED"
	}
	t.add(what, figure, bound, runs, verdict)
}

// information adds a figure without a bound.
func (t *table) information(what, figure string, runs int) { t.add(what, figure, "", runs, "") }

func (t *table) add(what, figure, bound string, runs int, verdict string) {
	t.rows = append(t.rows, []string{what, figure, bound, strconv.Itoa(runs), verdict})
}

// below adds a median that has to be at most the bound.
func (t *table) below(what string, taken samples, bound time.Duration) {
	t.bound(what, taken.String(), "<= "+strconv.FormatInt(bound.Milliseconds(), 10)+" ms", len(taken), taken.median() <= bound)
}

// print writes the table in Markdown.
func (t *table) print(w io.Writer) {
	rows := append([][]string{{"what", "figure", "bound", "runs", "verdict"}}, t.rows...)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(w, line.String()+"|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprint(w, "|"+strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}
