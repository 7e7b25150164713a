package nix

import "devhost/internal/progress"

// Report passes the events of a build or download on to a Reporter.
func Report(reporter progress.Reporter) func(Event) {
	return func(event Event) {
		if event.Kind == BuilderOutput {
			return
		}
		reporter.Build(progress.BuildStatus{
			Started: event.Kind == BuildStarted, Name: event.Current,
			Done: event.Built, Total: event.ToBuild,
			Fetched: event.Fetched, ToFetch: event.ToFetch,
		})
	}
}
