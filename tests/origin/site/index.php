<?php

declare(strict_types=1);

// The front controller: on the wire it behaves as TYPO3 does, line by line of what was observed on real
// installations of 11.5, 12.4, 13.4 and 14.3. Written for the tests; nothing of TYPO3's code is in it.

require __DIR__ . '/lib/answers.php';
require __DIR__ . '/lib/backend.php';
require __DIR__ . '/lib/tools.php';

$path = rawurldecode(parse_url('http://x' . $_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
$line = $_GET['line'] ?? $_SERVER['HTTP_X_ORIGIN_LINE'] ?? $_SERVER['ORIGIN_LINE'] ?? $_SERVER['REDIRECT_ORIGIN_LINE'] ?? '13.4';

if (in_array($_SERVER['REQUEST_METHOD'], ['FOO'], true)) {
    answer(400, html('Bad Request', '<p>Unknown method</p>'));
} elseif (isset($_GET['__typo3_install']) && (float)$line >= 14.0) {
    installTool();
} elseif ($path === '/typo3' || str_starts_with($path, '/typo3/')) {
    backend($path, $line);
} else {
    tool($path) || visitor($path, $line) || frontend($path);
}
