package names

// Closest is the known word that somebody may have meant, "" if none is near.
func Closest(word string, known []string) string {
	const farthest = 2
	found, least := "", min(farthest, len(word)/2)+1
	for _, candidate := range known {
		if distance := editDistance(word, candidate); distance < least {
			found, least = candidate, distance
		}
	}
	return found
}

// editDistance counts the bytes to insert, remove or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
