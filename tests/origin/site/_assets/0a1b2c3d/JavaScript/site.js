document.documentElement.dataset.asset = "loaded";
