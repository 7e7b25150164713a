package doctor

import "context"

// diskLimits says whether --disk-size can be kept.
func (h *Host) diskLimits(context.Context) []Finding {
	const check = "disk limits"
	folder := existing(h.StateDir)
	if h.Quotas(folder) {
		return one(check, Good, "the file system of "+folder+" enforces them (project quotas)", "")
	}
	return one(check, Warning, "the file system of "+folder+" has no project quotas: --disk-size is recorded, not enforced",
		"where that matters, have the state folder on ext4 made with -O project,quota, or on xfs, mounted with prjquota (Linux 5.14 or newer)")
}
