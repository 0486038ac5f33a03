module pretake.test

go 1.19
