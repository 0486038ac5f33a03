module retake

go 1.22
