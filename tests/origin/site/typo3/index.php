<?php
// The backend entry point of TYPO3 11 and 12; 13 and 14 route it through the one in the root.
require dirname(__DIR__) . "/index.php";
