// Package seedtest plays the guest's part of a seed disk in tests.
package seedtest

import (
	"bytes"
	"os"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"

	"devhost/internal/seed"
)

// Write writes a file into the root folder of an image that seed.Create made.
func Write(image, name string, data []byte) error {
	opened, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer opened.Close()
	system, err := fat16.Read(file.New(opened, false), seed.Size, 0, 0)
	if err != nil {
		return err
	}
	target, err := system.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err := target.Write(data); err != nil {
		return err
	}
	return target.Close()
}

// Report writes events as an installer does, to an image and to a console.
func Report(image string, console *bytes.Buffer, events ...seed.Event) error {
	var report bytes.Buffer
	reporter := seed.Reporter{File: &report, Console: console}
	for _, event := range events {
		if err := reporter.Report(event); err != nil {
			return err
		}
	}
	return Write(image, seed.ReportFile, report.Bytes())
}
